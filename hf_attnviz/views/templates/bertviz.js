"use strict";
// Starts BertViz once for each group of maps, when it is first shown. Only the shown root is in the document:
// BertViz names its elements with fixed ids and looks some of them up globally.
(async () => {
  const {view, groups, start, layer, heads, libraries, tallest} = attnviz.data;
  await attnviz.library(libraries);
  const stage = document.getElementById("stage");
  const note = document.getElementById("stage-note");
  const reading = document.getElementById("stage-reading");
  const SVG = "http://www.w3.org/2000/svg";
  const PLENTY = 20000; // up to so many lines every one is drawn
  const MOST = 120000; // beyond, a browser no longer draws in reasonable time
  const INVISIBLE = 1 / 510; // an opacity that rounds to nothing on an 8-bit screen
  const FAINTEST_NUMBER = 0.0005; // below, no number is written beside a line
  const LISTED = 6; // so many of the strongest are named in words
  const TOKEN_WIDTH = {head_view: 100, model_view: 76, neuron_view: 104}[view];
  const WORDS = {
    "Heads": {en: "Heads", zh: "头"}, "Layers": {en: "Layers", zh: "层"},
    "Query q": {en: "Query q", zh: "查询 q"}, "Key k ": {en: "Key k", zh: "键 k"},
    "q × k (elementwise)": {en: "q × k (elementwise)", zh: "q × k（逐元素）"},
    "Softmax": {en: "Softmax", zh: "权重"}, "No token selected": {en: "No token selected", zh: "未选择词元"},
  };

  let faintest = 0;
  const append = d3.selection.prototype.append;
  d3.selection.prototype.append = function (name) {
    if (!faintest || (name !== "line" && name !== "path")) return append.call(this, name);
    return this.select(function (weight) {
      if (typeof weight === "number" && weight < faintest) return null; // d3 leaves a gap, indices stay right
      return this.appendChild(document.createElementNS(SVG, name));
    });
  };

  /** The weight below which lines are left out, so that at most MOST are drawn at once. */
  function threshold(group, numbers) {
    const inLayer = group.heads.length;
    const atOnce = {head_view: inLayer, model_view: inLayer * group.layers.length, neuron_view: 1}[view];
    if (atOnce * numbers.slab <= PLENTY) return 0;
    return Math.max(INVISIBLE, numbers.threshold(atOnce, view === "neuron_view" ? MOST / 6 : MOST));
  }

  function select(id, label) {
    const element = attnviz.make("select", {id});
    const caption = attnviz.make("span", {"data-words": JSON.stringify(label)});
    return attnviz.make("label", {}, caption, element);
  }

  /** The root element with the menus that BertViz fills. */
  function rootOf(id, parts) {
    const controls = attnviz.make("div", {className: "controls"});
    if (view !== "model_view") controls.append(select("layer", {en: "Layer", zh: "层"}));
    if (view === "neuron_view") controls.append(select("att_head", {en: "Head", zh: "头"}));
    if (Object.keys(parts).length > 1) {
      const filter = select("filter", {en: "Attention", zh: "注意力"});
      Object.entries(parts).forEach(([value, part]) => {
        filter.lastChild.append(attnviz.make("option", {value, "data-words": JSON.stringify(part.name)}));
      });
      controls.append(filter);
    }
    return attnviz.make("div", {id, className: "root"}, controls, attnviz.make("div", {id: "vis"}));
  }

  const canvas = document.createElement("canvas").getContext("2d");
  function shorten(element) {
    const full = element.textContent;
    if (element.dataset.full !== undefined) return;
    element.dataset.full = full;
    canvas.font = `${element.getAttribute("font-size")} ${getComputedStyle(element).fontFamily}`;
    if (canvas.measureText(full).width <= TOKEN_WIDTH) return;
    const characters = Array.from(full);
    while (characters.length > 1 && canvas.measureText(`${characters.join("")}…`).width > TOKEN_WIDTH) characters.pop();
    element.textContent = `${characters.join("")}…`;
    const title = document.createElementNS(SVG, "title");
    title.textContent = full;
    element.append(title);
  }

  function press(element, name) {
    element.dispatchEvent(new MouseEvent(name, {bubbles: true, cancelable: true}));
  }
  /** A part of the drawing that the keyboard can reach and use. */
  function reachable(element, role, name, keys) {
    if (element.hasAttribute("tabindex")) return;
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", role);
    element.setAttribute("aria-label", name);
    element.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
  /** The tokens of what is shown: each side of each drawing, with the tokens across. */
  function sides(root) {
    const places = {
      head_view: [["#left", "#right"]],
      model_view: [["svg > g.detail:has(text)", "svg > g.detail:has(text) ~ g.detail:has(text)"]],
      neuron_view: [["#collapsed #leftText", "#collapsed #rightText"], ["#expanded #leftText", "#expanded #rightText"]],
    }[view];
    return places.flatMap(([left, right]) => {
      const tokens = [left, right].map((place) => {
        const found = root.querySelector(place);
        return found ? [...found.querySelectorAll("g")].filter((group) => group.querySelector(":scope > text")) : [];
      });
      const expanded = left.startsWith("#expanded");
      const both = [{own: tokens[0], across: tokens[1], left: true, expanded}];
      if (view !== "neuron_view") both.push({own: tokens[1], across: tokens[0], left: false, expanded});
      return both;
    });
  }

  const textOf = (token) => token.querySelector("text").dataset.full;

  /** Which heads of which layer the shown lines are of. */
  function drawn({root, group, parts}) {
    const part = parts[root.querySelector("#filter")?.value || "0"];
    if (view === "model_view") {
      const heading = /^Layer (\d+), Head (\d+)$/.exec(root.querySelector("svg > text.detail")?.dataset.word);
      return heading && {part, layer: group.layers.indexOf(+heading[1]), heads: [group.heads.indexOf(+heading[2])]};
    }
    const chosen = +root.querySelector("#layer").value;
    if (view === "neuron_view") return {part, layer: chosen, heads: [+root.querySelector("#att_head").value]};
    const on = [...root.querySelectorAll("[aria-checked]")].flatMap((square, h) => square.getAttribute("aria-checked") === "true" ? [h] : []);
    return {part, layer: group.layers.indexOf(chosen), heads: on};
  }

  const written = (weight) => weight.toFixed(current.group.exact ? 4 : 3);

  /** The numbers of one token's lines: beside the tokens across, and the strongest in words. */
  function tell(shown, {across, left, expanded}, token, index) {
    untell();
    const place = drawn(shown);
    if (!place) return;
    const maps = place.heads.map((h) => place.part.attn[place.layer][h]);
    const mean = (query, key) => maps.reduce((sum, map) => sum + map[query][key], 0) / maps.length;
    const weights = across.map((_, other) => left ? mean(index, other) : mean(other, index));
    const scores = expanded ? [...shown.root.querySelectorAll("rect.dotproduct")].map((box) => +box.dataset.value) : [];
    const beside = document.createElementNS(SVG, "g");
    beside.setAttribute("class", "beside");
    across.forEach((other, i) => {
      if (expanded ? i > index && !shown.group.bidirectional : weights[i] < FAINTEST_NUMBER) return; // BertViz hides these
      const text = other.querySelector("text");
      const box = other.querySelector("rect").getBBox();
      const number = document.createElementNS(SVG, "text");
      const outside = left === expanded; // on the lines, but where vectors stand: beyond the token
      number.setAttribute("x", outside ? box.x + box.width + 4 : box.x - 4);
      number.setAttribute("y", +text.getAttribute("y") + +text.getAttribute("dy") - 2);
      number.setAttribute("text-anchor", outside ? "start" : "end");
      number.textContent = expanded ? `${scores[i].toFixed(3)} → ${written(weights[i])}` : written(weights[i]);
      beside.append(number);
    });
    shown.root.querySelector("svg").append(beside);
    const strongest = weights.map((weight, i) => [weight, i]).filter(([weight]) => weight >= FAINTEST_NUMBER);
    strongest.sort((one, other) => other[0] - one[0]);
    const list = strongest.slice(0, LISTED).map(([weight, i]) => `${textOf(across[i])} ${written(weight)}`).join(" · ");
    const name = textOf(token);
    const of = place.heads.length;
    const mean_of = of > 1 ? {en: ` (mean of ${of} heads)`, zh: `（${of} 个头的平均）`} : {en: "", zh: ""};
    const nothing = {en: "nothing", zh: "无"};
    reading.textContent = attnviz.say(left
      ? {en: `“${name}” looks at: ${list || nothing.en}${mean_of.en}`, zh: `“${name}”注意：${list || nothing.zh}${mean_of.zh}`}
      : {en: `“${name}” is looked at by: ${list || nothing.en}${mean_of.en}`, zh: `注意“${name}”的有：${list || nothing.zh}${mean_of.zh}`});
  }

  function untell() {
    stage.querySelector(".beside")?.remove();
    reading.textContent = "";
  }

  /** The number of one cell of a vector, on hover. */
  function tellCell(shown, cell) {
    const vector = cell.parentNode;
    const side = vector.closest("#queries, #keys, #product").id;
    if (side === "product" && vector.closest("#product").style.opacity === "0") return; // no token is chosen
    const {part, layer: l} = drawn(shown);
    const scale = side === "keys" ? 1 : Math.sqrt(shown.group.numbers[l].size); // see bertviz_numbers.js
    const token = (side === "queries" ? part.left_text : part.right_text)[+vector.dataset.index];
    const name = {queries: "q", keys: "k", product: "q×k"}[side];
    const place = [...vector.querySelectorAll(".element")].indexOf(cell);
    reading.textContent = `${name}[${place}] · ${token}: ${+(cell.dataset.value / scale).toPrecision(4)}`;
  }

  /** What BertViz' drawing lacks: words in both languages, long tokens cut with the whole as a hint, keyboard use. */
  function finish(shown) {
    const {root, group} = shown;
    const svg = root.querySelector("svg");
    for (const element of root.querySelectorAll("[data-words]")) {
      element.textContent = attnviz.say(JSON.parse(element.dataset.words));
    }
    const tokens = {head_view: "#left text, #right text", model_view: "text.token", neuron_view: "text.token"}[view];
    root.querySelectorAll(tokens).forEach(shorten);
    const headings = {head_view: "none", model_view: "svg > text", neuron_view: "#heading text"}[view];
    for (const element of root.querySelectorAll(headings)) {
      const word = element.dataset.word || element.textContent;
      const detail = /^Layer (\d+), Head (\d+)$/.exec(word);
      if (!WORDS[word] && !detail) continue;
      element.dataset.word = word;
      element.textContent = attnviz.say(WORDS[word] || {en: word, zh: detail && `第 ${detail[1]} 层，第 ${detail[2]} 头`});
    }
    for (const side of sides(root)) {
      side.own.forEach((token, index) => {
        if (token.hasAttribute("tabindex")) return;
        const toggle = [...token.querySelectorAll("rect")].pop();
        const turn = () => { // the same token in the other of the two drawings
          press(toggle, "click");
          sides(root).find((other) => other.expanded !== side.expanded).own[index].focus();
        };
        const keys = {neuron_view: {Enter: turn}, model_view: {Escape: () => toggleDetail(shown)}, head_view: {}}[view];
        reachable(token, "button", textOf(token), keys);
        token.addEventListener("focus", () => press(token, "mouseover"));
        token.addEventListener("mouseover", () => tell(shown, side, token, index));
        token.addEventListener("mouseleave", () => {
          untell();
          const pinned = view !== "head_view" && side.own.find((other) => other === document.activeElement);
          if (pinned) press(pinned, "mouseover"); // what has the focus stays, so that its cells can be looked at
        });
        token.addEventListener("blur", () => {
          const target = view === "head_view" ? token.parentNode.parentNode : token;
          target.dispatchEvent(new MouseEvent("mouseleave"));
          untell();
        });
      });
    }
    if (view === "head_view") {
      const squares = [...svg.lastElementChild.querySelectorAll("rect")];
      svg.style.minWidth = `${Math.max(345, squares.length * 20 + 4)}px`;
      squares.forEach((square, h) => {
        const name = attnviz.say({en: `Head ${group.heads[h]}`, zh: `第 ${group.heads[h]} 头`});
        reachable(square, "checkbox", name, {" ": () => press(square, "click"), Enter: () => press(square, "dblclick")});
        square.setAttribute("aria-label", name);
        square.style.cursor = "pointer";
        square.setAttribute("aria-checked", String(square.getAttribute("fill") === d3.schemeCategory10[h % 10]));
        const title = square.querySelector("title") || square.appendChild(document.createElementNS(SVG, "title"));
        title.textContent = name;
      });
    }
    if (view === "model_view") {
      // BertViz makes room for the tokens of an opened picture, which nothing fills while none is open.
      svg.dataset.whole ??= svg.getAttribute("height");
      const ends = [...svg.querySelectorAll(".attn_background")].map((one) => +one.getAttribute("y") + +one.getAttribute("height"));
      svg.setAttribute("height", svg.querySelector(".detail") ? svg.dataset.whole : String(Math.ceil(Math.max(...ends)) + 2));
      svg.querySelectorAll(":scope > g > rect:last-child").forEach((square, number) => {
        const l = group.layers[Math.floor(number / group.heads.length)];
        const h = group.heads[number % group.heads.length];
        const name = attnviz.say({en: `Layer ${l}, head ${h}`, zh: `第 ${l} 层，第 ${h} 头`});
        const open = () => toggleDetail(shown, square);
        reachable(square, "button", name, {Enter: open, " ": open});
        square.setAttribute("aria-label", name);
        square.onmouseover = square.onfocus = () => { reading.textContent = name; };
        square.onmouseleave = square.onblur = untell;
      });
    }
    if (view === "neuron_view") {
      // BertViz makes room for the tokens on the right only.
      const {left_text: left, right_text: right} = shown.parts[root.querySelector("#filter")?.value || "0"];
      svg.setAttribute("height", `${Math.max(left.length, right.length) * 26 + 70}px`);
      for (const [menu, names] of [["#layer", group.layers], ["#att_head", group.heads]]) {
        for (const option of root.querySelectorAll(`${menu} option`)) option.textContent = names[+option.value];
      }
    }
    note.textContent = shown.faintest > INVISIBLE ? attnviz.say({
      en: `There are more lines than a browser can draw: weights below ${shown.faintest.toFixed(3)} are left out of this drawing.`,
      zh: `线条多于浏览器所能绘制：本图略去了小于 ${shown.faintest.toFixed(3)} 的权重。`,
    }) : "";
  }

  /** Opens a small picture from the keyboard and goes into it; without one closes what is open and goes back. */
  function toggleDetail(shown, square) {
    const opened = square || shown.opened;
    if (!opened) return;
    press(opened, "click");
    shown.opened = opened;
    const inside = sides(shown.root)[0].own[0];
    (square && inside ? inside : opened).focus();
  }

  const shownBefore = new Map(); // group number → {root, group, faintest, theme}
  let current = null;
  let latest = 0;

  function draw(number, parts, limit, chosen) {
    const group = groups[number];
    const root = rootOf(`bertviz-${number}`, parts);
    stage.replaceChildren(root);
    faintest = limit;
    const first = number === start;
    const params = {
      tallest, attention: parts, default_filter: chosen.filter || "0", root_div_id: root.id, display_mode: "light",
      include_layers: group.layers, include_heads: group.heads, heads: first ? heads : null,
      total_heads: Math.max(group.heads.length, 4), // BertViz makes the pictures of few heads as tall as a house
      bidirectional: group.bidirectional,
      layer: view === "neuron_view" ? (first ? layer : 0) : group.layers[first ? layer : 0],
      head: first && heads ? heads[0] : 0,
    };
    if (view === "neuron_view") {
      params.display_mode = attnviz.theme;
      if (chosen.layer !== undefined) [params.layer, params.head] = [+chosen.layer, +chosen.head];
    }
    const libraries = {jquery: jQuery, d3};
    const requirejs = (names, make) => make(...names.map((name) => libraries[name]));
    const place = {bertviz_params: params};
    runBertviz(params, place, {config() {}}, requirejs, {log() {}});
    if (chosen.filter) root.querySelector("#filter").value = chosen.filter;
    const shown = {root, group, parts, faintest: limit, theme: attnviz.theme, number};
    for (const event of ["change", "click", "dblclick"]) {
      root.addEventListener(event, () => { faintest = limit; untell(); finish(shown); });
    }
    root.addEventListener("mouseover", (event) => {
      if (event.target.matches("#expanded .element")) tellCell(shown, event.target);
    });
    shownBefore.set(number, shown);
    return shown;
  }

  async function show(number) {
    const mine = ++latest;
    let shown = shownBefore.get(number);
    if (shown) {
      stage.replaceChildren(shown.root);
    } else {
      stage.setAttribute("aria-busy", "true");
      const numbers = await attnviz.numbers(groups[number]);
      if (mine !== latest) return; // another stack was chosen meanwhile
      shown = draw(number, numbers.parts(), threshold(groups[number], numbers), {});
    }
    current = shown;
    faintest = shown.faintest;
    refresh();
    stage.setAttribute("aria-busy", "false");
    stage.dataset.group = String(number);
  }

  /** After a change of language or theme. Only the neuron view bakes its colours in and is drawn anew. */
  function refresh() {
    if (!current) return;
    if (view === "neuron_view" && current.theme !== attnviz.theme) {
      const value = (id) => current.root.querySelector(id)?.value;
      const chosen = {layer: value("#layer"), head: value("#att_head"), filter: value("#filter")};
      current = draw(current.number, current.parts, current.faintest, chosen);
    }
    finish(current);
  }

  attnviz.onChange(refresh);
  if (groups.length > 1) {
    const options = groups.map((group, number) => [String(number), group.name]);
    const menu = attnviz.menu("stack", {en: "Stack", zh: "堆栈"}, options, String(start));
    document.getElementById("stack-controls").append(menu);
    menu.querySelector("select").addEventListener("change", (event) => show(+event.target.value).catch(attnviz.fail));
  }
  await show(start);
})().then(attnviz.ready, attnviz.fail);
