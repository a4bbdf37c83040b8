"use strict";
// A text whose tokens stand on the colour of what a query gives them. In self-attention a click on the text chooses the
// query; in cross-attention the tokens that look stand above it.
(async () => {
  const {groups, signed, unit} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const ROOT = {en: "square root", zh: "平方根"};
  const values = [];
  let group = groups[attnviz.data.first];
  let numbers = null;
  let sizes = [];
  let chosen = [...attnviz.data.start];
  let query = attnviz.data.query; // null: the mean over all
  let rooted = false;
  let row = null;
  let tokens = [];
  let lookers = [];
  let scale = null;

  async function choose(n, start) {
    group = groups[n];
    values[n] ??= await attnviz.numbers(group.numbers);
    numbers = values[n];
    sizes = group.axes.map((axis) => axis.labels.length);
    chosen = start;
  }
  /** What is shown of each token: of one query, or the mean over those that are defined. */
  function rowOf() {
    const count = group.keys.length;
    const queries = Math.max(1, group.queries.length);
    const pages = attnviz.pages(sizes, chosen);
    if (group.queries.length && query === null) {
      const matrix = attnviz.mean(numbers, pages, queries * count);
      return attnviz.mean(matrix, Array.from({length: queries}, (_, n) => n), count);
    }
    return attnviz.mean(numbers, pages, queries * count, (query || 0) * count, count);
  }
  const named = (texts, n) => `${texts[n]} (${n})`;
  const number = (value) => (Number.isFinite(value) ? `${attnviz.format(value)} ${attnviz.say(unit)}`.trim() : attnviz.format(value));

  function write(box, texts, spaces, rtl) {
    box.dir = rtl ? "rtl" : "ltr";
    const made = texts.map((text, n) => {
      const span = attnviz.make("span", {role: "option", tabindex: n ? -1 : 0}, text);
      span.dataset.n = n;
      return span;
    });
    box.replaceChildren(...made.flatMap((span, n) => [spaces[n] === "1" ? " " : "", span, texts[n] === "↵" ? "\n" : ""]));
    return made;
  }
  function build() {
    const other = group.queries.length > 0 && !group.stands;
    byId("other").hidden = !other;
    tokens = write(byId("text"), group.keys, group.spaces, group.rtl);
    lookers = other ? write(byId("other"), group.queries, group.queries.map((_, n) => (n ? "1" : "0")), group.otherRtl) : [];
    byId("menus").replaceChildren();
    if (groups.length > 1) {
      const menu = attnviz.menu("group", {en: "stack", zh: "堆栈"}, groups.map((one, n) => [String(n), one.name]), String(groups.indexOf(group)));
      menu.querySelector("select").addEventListener("change", async (event) => {
        const n = +event.target.value;
        query = null;
        await choose(n, groups[n].axes.map(({id, labels}) => (id === "head" && labels.length > 1 ? -1 : id === "layer" ? labels.length - 1 : 0)));
        build();
        draw();
      });
      byId("menus").append(menu);
    }
    attnviz.menus(byId("menus"), group.axes, chosen, draw);
    const growth = attnviz.menu("growth", {en: "colours by", zh: "颜色依据"}, [["linear", {en: "number", zh: "数值"}], ["root", ROOT]], rooted ? "root" : "linear");
    growth.querySelector("select").addEventListener("change", (event) => { rooted = event.target.value === "root"; draw(); });
    byId("menus").append(growth);
    if (group.queries.length) {
      const all = attnviz.make("button", {type: "button", id: "average"});
      all.addEventListener("click", () => { query = null; draw(); });
      byId("menus").append(all);
    }
    words();
  }
  function words() {
    const button = byId("average");
    if (button) button.textContent = attnviz.say({en: "mean over queries", zh: "各查询平均"});
    const other = lookers.length > 0;
    byId("text").setAttribute("aria-label", attnviz.say(other ? {en: "Text that is looked at", zh: "被注意的文本"} : {en: "Text; left and right move, up and down choose the query", zh: "文本；左右移动，上下选择查询"}));
    byId("other").setAttribute("aria-label", attnviz.say({en: "Tokens that look; Enter chooses", zh: "发出注意的词元；回车选择"}));
  }

  function draw() {
    row = rowOf();
    let most = 0;
    for (const value of row) if (Math.abs(value) > most) most = Math.abs(value);
    scale = most || 1;
    const ramp = attnviz.ramp(signed ? "diverging" : "sequential");
    row.forEach((value, n) => {
      const span = tokens[n];
      const share = (rooted ? Math.sqrt(Math.abs(value) / scale) : Math.abs(value) / scale) || 0;
      span.classList.toggle("nothing", !Number.isFinite(value));
      if (!Number.isFinite(value)) span.style.cssText = "";
      else {
        const {background, color} = attnviz.heatAt(ramp, signed ? 0.5 + (Math.sign(value) * share) / 2 : share);
        // The bar stands outside the ground: below it, or above it for numbers below zero.
        const side = group.rtl ? "right" : "left";
        const rule = `linear-gradient(var(--text), var(--text)) ${side} ${value < 0 ? "top" : "bottom"} / ${(Math.abs(value) / scale) * 100}% 3px`;
        const ground = `linear-gradient(${background}, ${background}) ${side} center / calc(100% - 1px) calc(100% - 10px)`;
        span.style.cssText = `color: ${color}; background: ${rule} no-repeat, ${ground} no-repeat`;
      }
      span.setAttribute("aria-label", `${named(group.keys, n)}: ${number(value)}`);
    });
    const framed = query === null ? null : group.stands ? tokens[group.stands[query]] : lookers[query];
    for (const span of [...tokens, ...lookers]) {
      span.classList.toggle("query", span === framed);
      span.setAttribute("aria-selected", span === framed);
    }
    bar(ramp);
    tell(null);
  }
  function bar(ramp) {
    const placed = (_, i) => {
      const share = i / 255;
      const place = !rooted ? share : signed ? 0.5 + Math.sign(share - 0.5) * Math.sqrt(Math.abs(2 * share - 1)) / 2 : Math.sqrt(share);
      return attnviz.colourAt(ramp, place);
    };
    attnviz.paintBar("bar-colours", ramp.map(placed));
    byId("bar-low").textContent = attnviz.format(signed ? -scale : 0);
    byId("bar-middle").textContent = attnviz.format(signed ? 0 : scale / 2);
    byId("bar-high").textContent = `${attnviz.format(scale)} ${attnviz.say(unit)}`.trim();
  }
  function tell(n, looker = false) {
    const who = !group.queries.length ? "" : query === null ? attnviz.say({en: "mean over queries", zh: "各查询平均"}) : `${attnviz.say({en: "query", zh: "查询"})} ${named(group.queries, query)}`;
    let what = attnviz.say({en: "Point at a token, or use the arrow keys, for its number.", zh: "指向词元或用方向键查看数值。"});
    if (n !== null) what = looker ? `${attnviz.say({en: "Click for", zh: "点击选择"})} ${named(group.queries, n)}` : `${attnviz.say({en: "token", zh: "词元"})} ${named(group.keys, n)} · ${number(row[n])}`;
    byId("readout").textContent = [who, what].filter(Boolean).join(" · ");
  }

  /** The query that a token of the text is, or -1. */
  const queryAt = (n) => (group.stands ? group.stands.indexOf(n) : -1);
  function pick(n) {
    if (n < 0 || n >= group.queries.length) return;
    query = n;
    draw();
  }
  function focus(list, n) {
    if (!list[n]) return;
    list.forEach((span) => span.setAttribute("tabindex", -1));
    list[n].setAttribute("tabindex", 0);
    list[n].focus();
  }
  for (const id of ["text", "other"]) {
    const looker = id === "other";
    const box = byId(id);
    const list = () => (looker ? lookers : tokens);
    const rtl = () => (looker ? group.otherRtl : group.rtl);
    const at = (event) => { const span = event.target.closest("[data-n]"); return span ? +span.dataset.n : null; };
    const choice = (n) => pick(looker ? n : queryAt(n));
    box.addEventListener("mouseover", (event) => tell(at(event), looker));
    box.addEventListener("mouseleave", () => tell(null));
    box.addEventListener("focusin", (event) => tell(at(event), looker));
    box.addEventListener("click", (event) => {
      const n = at(event);
      if (n === null) return;
      choice(n);
      focus(list(), n);
      tell(n, looker);
    });
    box.addEventListener("keydown", (event) => {
      const n = at(event);
      if (n === null) return;
      const ahead = {ArrowRight: rtl() ? -1 : 1, ArrowLeft: rtl() ? 1 : -1}[event.key];
      const turn = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (ahead) focus(list(), n + ahead);
      else if (turn) pick(query === null ? (turn > 0 ? 0 : group.queries.length - 1) : query + turn);
      else if (event.key === "Enter" || event.key === " ") choice(n);
      else if (event.key === "Escape") { query = null; draw(); }
      else return;
      event.preventDefault();
      if (!ahead) tell(n, looker);
    });
  }
  await choose(attnviz.data.first, chosen);
  build();
  draw();
  attnviz.onChange(() => { words(); draw(); });
  attnviz.ready();
})().catch(attnviz.fail);
