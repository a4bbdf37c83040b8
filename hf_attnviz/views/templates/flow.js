"use strict";
// A graph of contributions: paths into a chosen position, or every layer by itself; a threshold leaves thin lines out.
(async () => {
  const {graphs, most} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const {make, say} = attnviz;
  const [LEAST, LARGEST] = [0.001, 0.9]; // ends of the slider, which is logarithmic
  const ROW = 19;
  const ALL_ROWS = 40; // tokens up to which those without a line are shown, too
  const LISTED = 10;
  const state = {which: 0, threshold: attnviz.data.threshold, chosen: null, at: null}; // chosen, at: [level, token]
  let one = null;
  let shares = null; // the share of the chosen position that passes through each, by level
  let drawn = []; // lines: {layer, query, key, contribution, share}
  let possible = 0; // lines there would be without a threshold
  let rows = [];
  let place = null; // token → y
  const size = {};

  const format = (value) => attnviz.format(value, 3);
  const percent = (share) => `${+(100 * share).toPrecision(3)} %`;
  const token = (n) => `${one.texts[n]} (${n})`;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const levelName = (level) => (level ? say({en: `after layer ${one.layers[level - 1]}`, zh: `第 ${one.layers[level - 1]} 层之后`}) : say({en: "input", zh: "输入"}));

  const position = ([level, n]) => say({en: `${token(n)}, ${levelName(level)}`, zh: `${token(n)}（${levelName(level)}）`});

  async function opened(graph) {
    if (graph.codes) return graph;
    graph.codes = new Uint16Array(await attnviz.unpack(graph.weights));
    graph.places = new (graph.texts.length <= 65535 ? Uint16Array : Uint32Array)(await attnviz.unpack(graph.keys));
    graph.lost = new Set(graph.undefined);
    return graph;
  }
  /** Calls with every contribution of a row. */
  function each(layer, query, call) {
    const from = (layer * one.texts.length + query) * one.ranks;
    for (let i = from; i < from + one.ranks && one.codes[i]; i++) call(one.places[i], one.codes[i] / 65535);
  }
  /** The share of the chosen position that passes through each, level by level: the layers multiplied. */
  function follow() {
    shares = null;
    if (!state.chosen) return;
    const [top, start] = state.chosen;
    shares = Array.from({length: top + 1}, () => new Float64Array(one.texts.length));
    shares[top][start] = 1;
    for (let layer = top - 1; layer >= 0; layer--) shares[layer + 1].forEach((held, query) => {
      if (held) each(layer, query, (key, contribution) => { shares[layer][key] += held * contribution; });
    });
  }
  /** The lines that reach the threshold, the strongest first: all, or those on a way into the chosen position. */
  function lines() {
    const found = [];
    const every = one.texts.map((_, n) => n);
    let reached = new Set(state.chosen ? [state.chosen[1]] : every);
    possible = 0;
    for (let layer = (state.chosen ? state.chosen[0] : one.layers.length) - 1; layer >= 0; layer--) {
      const below = new Set();
      for (const query of state.chosen ? every : reached) {
        const held = shares ? shares[layer + 1][query] : 1;
        if (held) each(layer, query, (key, contribution) => {
          if (!state.chosen && key === query) return; // every residual at once would hide all else
          possible += 1;
          if (contribution < state.threshold || !reached.has(query)) return;
          below.add(key);
          found.push({layer, query, key, contribution, share: held * contribution});
        });
      }
      if (state.chosen) reached = below;
    }
    return found.sort((a, b) => b.share - a.share);
  }
  /** What arrives at each input along the lines that are drawn. */
  function carried() {
    const [top, start] = state.chosen;
    const held = Array.from({length: top + 1}, () => new Float64Array(one.texts.length));
    held[top][start] = 1;
    for (const {layer, query, key, contribution} of [...drawn].sort((a, b) => b.layer - a.layer)) held[layer][key] += held[layer + 1][query] * contribution;
    return held[0];
  }

  // ---- the picture
  const x = (level) => size.left + level * size.step;
  const y = (n) => 30 + place.get(n) * ROW;
  const radius = (level, n) => (shares ? (level < shares.length ? 1.8 + 6 * Math.sqrt(shares[level][n]) : 1.8) : 3);
  const label = (n) => (rows.length === one.texts.length ? one.texts[n] : token(n));
  const after = (n) => (one.produced && one.produced[n] !== null ? `${label(n)} → ${one.produced[n]}` : label(n));
  function arrange() {
    const used = new Set(drawn.flatMap(({query, key}) => [query, key]));
    for (const place of [state.chosen, state.at]) if (place) used.add(place[1]);
    rows = one.texts.length <= ALL_ROWS ? one.texts.map((_, n) => n) : [...used].sort((a, b) => a - b);
    if (!rows.length) rows = [one.start];
    place = new Map(rows.map((n, i) => [n, i]));
    size.left = Math.min(160, Math.max(...rows.map((n) => attnviz.textWidth(label(n))))) + 30;
    size.right = Math.min(180, Math.max(...rows.map((n) => attnviz.textWidth(after(n))))) + 36;
    const room = document.querySelector("main").clientWidth - size.left - size.right - 12;
    size.step = Math.max(54, Math.min(190, room / one.layers.length));
    size.width = size.left + size.step * one.layers.length + size.right;
    size.height = 46 + (rows.length - 1) * ROW;
  }
  function paint() {
    drawn = lines();
    const wanted = drawn.length;
    drawn = drawn.slice(0, most);
    arrange();
    const svg = attnviz.svg("svg", {width: size.width, height: size.height, tabindex: 0, role: "application"});
    svg.setAttribute("aria-label", say({en: "Graph of contributions; arrow keys move, Enter shows the paths into a position, Escape all lines",
      zh: "贡献图；方向键移动，回车显示通向该位置的路径，Esc 显示全部连线"}));
    for (let level = 0; level <= one.layers.length; level++) {
      svg.append(attnviz.svg("text", {class: "level", x: x(level), y: 9}, level ? say({en: `layer ${one.layers[level - 1]}`, zh: `第 ${one.layers[level - 1]} 层`}) : say({en: "input", zh: "输入"})));
    }
    for (const n of rows) {
      const chosen = state.chosen && state.chosen[1] === n ? " chosen" : "";
      const left = attnviz.svg("text", {class: `left${chosen}`, x: size.left - 14, y: y(n)}, attnviz.fitted(label(n), 160));
      const right = attnviz.svg("text", {class: `right${chosen}`, x: x(one.layers.length) + 16, y: y(n)}, attnviz.fitted(after(n), 180));
      left.append(attnviz.svg("title", {}, token(n)));
      right.append(attnviz.svg("title", {}, after(n)));
      svg.append(left, right);
    }
    [...drawn].reverse().forEach((line) => {
      line.path = attnviz.svg("line", {class: line.query === line.key ? "edge own" : "edge", x1: x(line.layer), y1: y(line.key), x2: x(line.layer + 1), y2: y(line.query),
        "stroke-width": Math.max(0.8, 9 * line.contribution).toFixed(2), opacity: (0.2 + 0.8 * Math.sqrt(line.share)).toFixed(2)});
      svg.append(line.path);
    });
    for (let level = 0; level <= one.layers.length; level++) for (const n of rows) {
      const nothing = shares && !(level < shares.length && shares[level][n]);
      svg.append(attnviz.svg("circle", {class: nothing ? "node nothing" : "node", cx: x(level), cy: y(n), r: radius(level, n).toFixed(1)}));
    }
    if (state.chosen) svg.append(attnviz.svg("circle", {class: "ring", cx: x(state.chosen[0]), cy: y(state.chosen[1]), r: 11}));
    const cursor = attnviz.svg("circle", {class: "cursor", r: 8, visibility: "hidden"});
    svg.append(cursor);
    size.cursor = cursor;
    const focused = document.activeElement && document.activeElement.closest("#graph");
    listen(svg);
    byId("graph").replaceChildren(svg);
    if (focused) svg.focus();
    tell(wanted);
    list();
    point(state.at, null);
  }
  function tell(wanted) {
    const capped = wanted > drawn.length ? say({en: ` More than ${most.toLocaleString("en-US")} reach the threshold: the strongest are drawn.`,
      zh: ` 超过 ${most} 条达到阈值：只画最强的。`}) : "";
    const hidden = one.texts.length - rows.length;
    const without = hidden ? say({en: ` ${hidden.toLocaleString("en-US")} positions without a line are left out.`, zh: ` ${hidden} 个没有连线的位置被略去。`}) : "";
    const count = `${drawn.length.toLocaleString("en-US")} / ${(shares ? possible : one.others.lines).toLocaleString("en-US")}`;
    const share = percent(sum(shares ? carried() : drawn.map((line) => line.contribution)) / (shares ? 1 : one.others.sum || 1));
    byId("shown").textContent = (shares ? say({
      en: `Paths into ${position(state.chosen)}: ${count} lines; along them ${share} of it arrives at the input. The others are below the threshold.`,
      zh: `通向 ${position(state.chosen)} 的路径：${count} 条线；其 ${share} 沿这些线来自输入。其余低于阈值。`}) : say({
      en: `Every layer by itself, between different tokens: ${count} lines, ${share} of what they take of each other. The others are below the threshold.`,
      zh: `逐层显示不同词元之间的连线：${count} 条，占其相互所取的 ${share}。其余低于阈值。`})) + capped + without;
    byId("threshold-number").textContent = format(state.threshold);
    byId("threshold").setAttribute("aria-valuetext", format(state.threshold));
  }
  function list() {
    byId("inputs-part").hidden = !state.chosen || !state.chosen[0];
    if (byId("inputs-part").hidden) return;
    const into = position(state.chosen);
    byId("inputs-name").textContent = say({en: `What ${into}, is made of at the input`, zh: `${into}：在输入处的构成`});
    const along = carried();
    const best = Array.from(shares[0].keys()).sort((a, b) => shares[0][b] - shares[0][a]).slice(0, LISTED).filter((n) => shares[0][n] > 0);
    byId("inputs").querySelector("tbody").replaceChildren(...best.map((n) => make("tr", {},
      make("td", {}, String(n)), make("td", {}, one.texts[n]), make("td", {}, format(shares[0][n])), make("td", {}, format(along[n])))));
  }

  // ---- pointing
  /** The position under the mouse, or the line nearest to it. */
  function under(event, svg) {
    const box = svg.getBoundingClientRect();
    const [mx, my] = [event.clientX - box.left, event.clientY - box.top];
    const level = Math.min(one.layers.length, Math.max(0, Math.round((mx - size.left) / size.step)));
    const n = rows[Math.min(rows.length - 1, Math.max(0, Math.round((my - 30) / ROW)))];
    if (Math.hypot(mx - x(level), my - y(n)) < 9) return {node: [level, n]};
    let [best, least] = [null, 6];
    for (const line of drawn) {
      const along = (mx - x(line.layer)) / size.step;
      if (along < 0 || along > 1) continue;
      const away = Math.abs(y(line.key) + along * (y(line.query) - y(line.key)) - my);
      if (away < least) [best, least] = [line, away];
    }
    return {line: best};
  }
  function listen(svg) {
    svg.addEventListener("mousemove", (event) => { const {node, line} = under(event, svg); point(node || null, line || null); });
    svg.addEventListener("mouseleave", () => point(document.activeElement === svg ? state.at : null, null));
    svg.addEventListener("click", (event) => { const {node} = under(event, svg); if (node) choose(node); });
    svg.addEventListener("focus", () => { if (!state.at) state.at = state.chosen || [one.layers.length, rows[0]]; point(state.at, null); });
    svg.addEventListener("keydown", (event) => {
      const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (event.key === "Enter" && state.at) choose(state.at);
      if (event.key === "Escape") choose(null);
      if (!by || !state.at) return;
      event.preventDefault();
      const row = Math.min(rows.length - 1, Math.max(0, (place.get(state.at[1]) ?? 0) + by[1]));
      state.at = [Math.min(one.layers.length, Math.max(0, state.at[0] + by[0])), rows[row]];
      point(state.at, null);
    });
  }
  /** What a position takes of others in its layer, the most first. */
  function sources(level, n) {
    if (!level) return "";
    if (one.lost.has((level - 1) * one.texts.length + n)) return say({en: "undefined (NaN)", zh: "未定义（NaN）"});
    const found = [];
    each(level - 1, n, (key, contribution) => { if (found.length < 5) found.push(`${token(key)} ${format(contribution)}`); });
    return say({en: `takes of ${found.join(", ")}`, zh: `取自 ${found.join("、")}`});
  }
  function point(node, line) {
    document.querySelectorAll("#graph .pointed").forEach((element) => element.classList.remove("pointed"));
    const on = node && place.has(node[1]);
    size.cursor.setAttribute("visibility", on ? "visible" : "hidden");
    const box = byId("readout");
    if (on) {
      const [level, n] = node;
      size.cursor.setAttribute("cx", x(level));
      size.cursor.setAttribute("cy", y(n));
      const share = shares && level < shares.length ? say({en: `${format(shares[level][n])} of ${token(state.chosen[1])}`, zh: `占 ${token(state.chosen[1])} 的 ${format(shares[level][n])}`}) : "";
      box.textContent = [position(node), share, sources(level, n)].filter(Boolean).join(" · ");
    } else if (line) {
      line.path.classList.add("pointed");
      const parts = [`${say({en: "layer", zh: "层"})} ${one.layers[line.layer]}: ${token(line.key)} → ${token(line.query)}`,
        say({en: `contribution ${format(line.contribution)}`, zh: `贡献 ${format(line.contribution)}`})];
      if (shares) parts.push(say({en: `${format(line.share)} of ${token(state.chosen[1])} comes this way`, zh: `${token(state.chosen[1])} 的 ${format(line.share)} 由此而来`}));
      box.textContent = parts.join(" · ");
    } else {
      box.textContent = say({en: "Point at a line or a dot, or use the arrow keys, for its numbers; a click on a dot, or Enter, shows the paths into it.",
        zh: "指向线或点，或用方向键，可看到数值；点击某点或按回车显示通向它的路径。"});
    }
  }
  function choose(node) {
    state.chosen = node && node[0] ? node : null; // nothing leads into the input
    if (node) state.at = node;
    follow();
    paint();
  }

  // ---- controls
  const slider = byId("threshold");
  const fromSlider = (value) => LEAST * (LARGEST / LEAST) ** (value / 100);
  const toSlider = (threshold) => Math.round((100 * Math.log(threshold / LEAST)) / Math.log(LARGEST / LEAST));
  slider.value = toSlider(state.threshold);
  slider.addEventListener("input", () => { state.threshold = fromSlider(+slider.value); paint(); });
  byId("all").addEventListener("click", () => choose(null));
  byId("back").addEventListener("click", () => choose([one.layers.length, one.start]));
  let latest = 0;
  async function show(which) {
    const mine = ++latest;
    const found = await opened(graphs[which]);
    if (mine !== latest) return;
    one = found;
    state.at = null;
    choose([one.layers.length, one.start]);
    state.at = null;
    point(null, null);
  }
  if (graphs.length > 1) {
    const menu = attnviz.menu("stack", {en: "Stack", zh: "堆栈"}, graphs.map(({name}, i) => [String(i), name]), "0");
    menu.querySelector("select").addEventListener("change", (event) => show(+event.target.value).catch(attnviz.fail));
    byId("menus").prepend(menu);
  }
  await show(0);
  attnviz.onChange(paint);
  attnviz.onResize(paint);
  attnviz.ready();
})().catch(attnviz.fail);
