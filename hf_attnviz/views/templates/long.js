"use strict";
// A long text: a map of the heads, and for the chosen one charts along the positions; one chosen position for all parts.
(async () => {
  const data = attnviz.data;
  const {layers, heads, statistics} = data;
  const byId = (id) => document.getElementById(id);
  const make = attnviz.make;
  const say = attnviz.say;
  const ROOM = {left: 92, right: 12, top: 8, bottom: 20, height: 190};
  const unpack = async (text, Type) => new Type(await attnviz.unpack(text));
  const side = async (one) => one && ({...one, texts: JSON.parse(new TextDecoder().decode(await attnviz.unpack(one.texts)))});
  const series = async (one) => one && ({
    ...one, codes: await unpack(one.codes, Uint16Array), low: await unpack(one.low, Float32Array), high: await unpack(one.high, Float32Array)});
  const queries = await side(data.queries);
  const keys = (await side(data.keys)) || queries;
  const means = await unpack(data.means, Float32Array);
  const even = data.even && await unpack(data.even, Float32Array);
  const [rows, rowsEven, received, receivedEven] = await Promise.all(
    [data.rows, data.rowsEven, data.received, data.receivedEven].map(series));
  const most = {count: data.most.count, keys: await unpack(data.most.keys, Int32Array), values: await unpack(data.most.values, Float32Array),
    even: data.most.even && await unpack(data.most.even, Float32Array)};
  const state = {statistic: 0, layer: data.start, head: 0, row: queries.count - 1, key: keys === queries ? keys.count - 1 : 0};

  const headIndex = () => state.layer * heads + state.head;
  const headName = (layer, head) => `L${layers[layer]}H${head}`;
  const format = (value) => attnviz.format(value, 3);
  const whole = (value) => value.toLocaleString("en-US");
  const percent = (share) => (Number.isFinite(share) ? `${+(100 * share).toPrecision(3)} %` : format(share));

  /** One series as {least, mean, largest}, an array each; where a bin is one position they are the same. */
  function read(block, number) {
    if (!block) return null;
    const {codes, bins, kinds} = block;
    const count = codes.length / kinds / bins;
    const [low, span] = [block.low[number], block.high[number] > block.low[number] ? block.high[number] - block.low[number] : 1];
    const of = (kind) => Array.from(codes.subarray((kind * count + number) * bins, (kind * count + number + 1) * bins),
      (code) => (code === 65535 ? NaN : Math.max(0, Math.expm1(low + (code / 65534) * span))));
    return kinds === 1 ? {mean: of(0)} : {least: of(0), mean: of(1), largest: of(2)};
  }
  /** The positions of a bin in words. */
  function places(one, bin) {
    const [first, last] = [bin * one.size, Math.min((bin + 1) * one.size, one.count) - 1];
    return first === last ? say({en: `position ${whole(first)}`, zh: `位置 ${whole(first)}`})
      : say({en: `positions ${whole(first)}–${whole(last)}`, zh: `位置 ${whole(first)}–${whole(last)}`});
  }
  /** A token between its neighbours; texts stay texts. */
  function context(one, place, reach) {
    const piece = (text) => make("span", {className: "token"}, text);
    const part = (from, to) => one.texts.slice(Math.max(0, from), Math.min(one.count, to)).flatMap((text) => [piece(text), " "]);
    return [...(place > reach ? ["… "] : []), ...part(place - reach, place), make("mark", {className: "token"}, one.texts[place]), " ",
      ...part(place + 1, place + 1 + reach), ...(place + reach < one.count - 1 ? ["…"] : [])];
  }

  // ---- the map of the heads
  const withNumbers = heads <= 16;
  const cells = [];
  function buildHeads() {
    const table = byId("heads");
    table.classList.toggle("numbers", withNumbers);
    const every = heads > 40 ? 8 : heads > 20 ? 4 : 1;
    const caption = make("tr", {}, make("th", {}), ...Array.from({length: heads}, (_, head) => make("th", {scope: "col"}, head % every ? "" : String(head))));
    const body = make("tbody");
    layers.forEach((name, layer) => {
      const line = make("tr", {}, make("th", {scope: "row"}, name));
      for (let head = 0; head < heads; head++) {
        const button = make("button", {type: "button", tabindex: "-1"});
        button.addEventListener("click", () => choose(layer, head));
        button.addEventListener("mouseenter", () => tellHead(layer, head));
        button.addEventListener("focus", () => tellHead(layer, head));
        cells.push(button);
        line.append(make("td", {}, button));
      }
      body.append(line);
    });
    table.append(make("thead", {}, caption), body);
    table.addEventListener("mouseleave", () => tellHead(state.layer, state.head));
    table.addEventListener("keydown", (event) => {
      const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!step) return;
      event.preventDefault();
      choose(Math.min(layers.length - 1, Math.max(0, state.layer + step[0])), Math.min(heads - 1, Math.max(0, state.head + step[1])));
      cells[headIndex()].focus();
    });
  }
  const meanAt = (numbers, layer, head) => numbers[(state.statistic * layers.length + layer) * heads + head];
  function paintHeads() {
    const all = cells.map((_, n) => meanAt(means, Math.floor(n / heads), n % heads));
    const known = all.filter(Number.isFinite);
    let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
    if (low <= high / 2) low = 0;
    if (high <= low) high = low + 1;
    const ramp = attnviz.ramp("sequential");
    cells.forEach((button, n) => {
      const value = all[n];
      const colour = Number.isFinite(value) ? attnviz.colourAt(ramp, (value - low) / (high - low)) : null;
      button.style.background = colour ? `rgb(${colour})` : "repeating-linear-gradient(135deg, var(--hatch) 0 1px, var(--nothing) 1px 4px)";
      button.style.color = colour ? attnviz.lettersOn(colour) : "var(--text)";
      button.textContent = withNumbers ? (Number.isFinite(value) ? format(value) : "–") : "";
      const [layer, head] = [Math.floor(n / heads), n % heads];
      button.setAttribute("aria-label", `${headName(layer, head)}: ${format(value)}`);
      const chosen = layer === state.layer && head === state.head;
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    });
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-low").textContent = format(low);
    byId("bar-high").textContent = `${format(high)} · ${say(statistics[state.statistic].name)}`;
    byId("heads").setAttribute("aria-label", say({en: "Heads; arrow keys move", zh: "注意力头；用方向键移动"}));
    tellHead(state.layer, state.head);
  }
  function tellHead(layer, head) {
    const other = even ? say({en: `; uniform attention ${format(meanAt(even, layer, head))}`, zh: `；均匀注意力 ${format(meanAt(even, layer, head))}`}) : "";
    byId("head-readout").textContent = `${headName(layer, head)} · ${say(statistics[state.statistic].name)}: ` +
      say({en: `mean over all rows ${format(meanAt(means, layer, head))}`, zh: `所有行的平均 ${format(meanAt(means, layer, head))}`}) + other;
  }

  // ---- charts along the text
  const width = () => Math.max(320, document.querySelector("main").clientWidth);
  const plotWidth = () => width() - ROOM.left - ROOM.right;
  const xOf = (one, bin) => ROOM.left + ((bin + 0.5) / Math.ceil(one.count / one.size)) * plotWidth();
  /** Round places for ticks along a text. */
  function ticksAlong(count) {
    const step = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((p) => n * 10 ** p)).sort((a, b) => a - b).find((n) => count / n <= Math.max(2, plotWidth() / 80));
    return Array.from({length: Math.ceil(count / step)}, (_, n) => n * step);
  }
  function scaleOf(found, dashed, log) {
    const all = [...(found.largest || found.mean), ...(found.least || []), ...(dashed ? dashed.mean : [])].filter(Number.isFinite);
    let high = all.length ? all.reduce((a, b) => Math.max(a, b)) : 1;
    if (high <= 0) high = 1;
    const inner = ROOM.height - ROOM.top - ROOM.bottom;
    if (log) {
      const low = Math.max(all.filter((v) => v > 0).reduce((a, b) => Math.min(a, b), high), high / 1e7, 1e-3);
      const [bottom, top] = [Math.floor(Math.log10(low)), Math.max(Math.ceil(Math.log10(high)), Math.floor(Math.log10(low)) + 1)];
      const y = (value) => ROOM.top + inner * (1 - (Math.log10(Math.max(value, 10 ** bottom)) - bottom) / (top - bottom));
      return {y, ticks: Array.from({length: top - bottom + 1}, (_, n) => 10 ** (bottom + n))};
    }
    const step = [1, 2, 2.5, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(high / 3))).find((n) => high / n <= 4);
    const top = Math.ceil(high / step - 1e-9) * step;
    return {y: (value) => ROOM.top + inner * (1 - value / top), ticks: Array.from({length: Math.round(top / step) + 1}, (_, n) => n * step)};
  }
  function chart(box, one, found, dashed, log, at) {
    const {y, ticks} = scaleOf(found, dashed, log);
    const svg = attnviz.svg("svg", {viewBox: `0 0 ${width()} ${ROOM.height}`, "aria-hidden": "true"});
    for (const tick of ticks) {
      svg.append(attnviz.svg("line", {class: "grid", x1: ROOM.left, x2: width() - ROOM.right, y1: y(tick), y2: y(tick)}));
      svg.append(attnviz.svg("text", {x: ROOM.left - 6, y: y(tick) + 4, "text-anchor": "end"}, log ? (tick >= 1 ? whole(tick) : String(+tick.toPrecision(1))) : format(tick)));
    }
    for (const tick of ticksAlong(one.count)) {
      svg.append(attnviz.svg("text", {x: xOf(one, Math.floor(tick / one.size)), y: ROOM.height - 5, "text-anchor": "middle"}, whole(tick)));
    }
    const point = (value, bin) => `${xOf(one, bin).toFixed(1)},${y(value).toFixed(1)}`;
    /** Runs of bins that are defined. */
    const runs = [];
    found.mean.forEach((value, bin) => {
      if (!Number.isFinite(value)) return;
      if (runs.length && runs[runs.length - 1].at(-1) === bin - 1) runs[runs.length - 1].push(bin);
      else runs.push([bin]);
    });
    for (const run of runs) {
      if (found.largest) {
        const [up, down] = [run.map((bin) => point(found.largest[bin], bin)), run.map((bin) => point(found.least[bin], bin)).reverse()];
        svg.append(attnviz.svg("polygon", {class: "band", points: [...up, ...down].join(" ")}));
      }
      if (run.length > 1) svg.append(attnviz.svg("polyline", {class: "mean", points: run.map((bin) => point(found.mean[bin], bin)).join(" ")}));
      else svg.append(attnviz.svg("circle", {class: "dot", cx: xOf(one, run[0]), cy: y(found.mean[run[0]]), r: 1.6}));
    }
    if (dashed) {
      const line = dashed.mean.map((value, bin) => (Number.isFinite(value) ? point(value, bin) : "")).filter(Boolean);
      svg.append(attnviz.svg("polyline", {class: "even", points: line.join(" ")}));
    }
    const bin = Math.floor(at / one.size);
    svg.append(attnviz.svg("line", {class: "cursor", x1: xOf(one, bin), x2: xOf(one, bin), y1: ROOM.top, y2: ROOM.height - ROOM.bottom}));
    if (Number.isFinite(found.mean[bin])) svg.append(attnviz.svg("circle", {class: "dot", cx: xOf(one, bin), cy: y(found.mean[bin]), r: 3.5}));
    box.replaceChildren(svg);
    box.setAttribute("aria-valuemin", "0");
    box.setAttribute("aria-valuemax", String(one.count - 1));
    box.setAttribute("aria-valuenow", String(at));
  }
  function told(one, found, dashed, bin) {
    const parts = [places(one, bin)];
    if (one.size === 1) parts.push(format(found.mean[bin]));
    else parts.push(say({en: `least ${format(found.least[bin])}`, zh: `最小 ${format(found.least[bin])}`}),
      say({en: `mean ${format(found.mean[bin])}`, zh: `平均 ${format(found.mean[bin])}`}),
      say({en: `largest ${format(found.largest[bin])}`, zh: `最大 ${format(found.largest[bin])}`}));
    if (dashed) parts.push(say({en: `uniform attention ${format(dashed.mean[bin])}`, zh: `均匀注意力 ${format(dashed.mean[bin])}`}));
    return parts.join(" · ");
  }
  const charts = {
    rows: {one: queries, chosen: () => state.row, put: (place) => { state.row = place; if (keys === queries) state.key = place; },
      found: () => read(rows, state.statistic * layers.length * heads + headIndex()), dashed: () => read(rowsEven, state.statistic), log: false},
    keys: {one: keys, chosen: () => state.key, put: (place) => { state.key = place; if (keys === queries) state.row = place; },
      found: () => read(received, headIndex()), dashed: () => read(receivedEven, 0), log: true},
  };
  function drawChart(name) {
    const {one, chosen, found, dashed, log} = charts[name];
    charts[name].now = [found(), dashed()];
    chart(byId(`${name}-chart`), one, ...charts[name].now, log, chosen());
    tellChart(name, Math.floor(chosen() / one.size));
  }
  function tellChart(name, bin) {
    const text = told(charts[name].one, ...charts[name].now, bin);
    byId(`${name}-readout`).textContent = text;
    byId(`${name}-chart`).setAttribute("aria-valuetext", text);
  }
  /** The bin under the pointer. */
  function under(event, box, one) {
    const frame = box.getBoundingClientRect();
    const share = ((event.clientX - frame.left) * (width() / frame.width) - ROOM.left) / plotWidth();
    const bins = Math.ceil(one.count / one.size);
    return Math.min(bins - 1, Math.max(0, Math.floor(share * bins)));
  }
  const keyed = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20};
  function listen(name) {
    const box = byId(`${name}-chart`);
    const {one, chosen, put} = charts[name];
    box.addEventListener("mousemove", (event) => tellChart(name, under(event, box, one)));
    box.addEventListener("mouseleave", () => tellChart(name, Math.floor(chosen() / one.size)));
    box.addEventListener("click", (event) => { put(under(event, box, one) * one.size); drawPlaces(); });
    box.addEventListener("keydown", (event) => {
      const bin = Math.floor(chosen() / one.size);
      const bins = Math.ceil(one.count / one.size);
      const to = event.key === "Home" ? 0 : event.key === "End" ? bins - 1 : event.key in keyed ? bin + keyed[event.key] : null;
      if (to === null) return;
      event.preventDefault();
      put(Math.min(bins - 1, Math.max(0, to)) * one.size);
      drawPlaces();
    });
  }

  // ---- lists
  function goTo(place) { charts.keys.put(place); drawPlaces(); }
  const jump = (place) => {
    const button = make("button", {type: "button"}, whole(place));
    button.addEventListener("click", () => goTo(place));
    return button;
  };
  function drawMost() {
    const total = data.total[headIndex()];
    const body = byId("most").querySelector("tbody");
    const lines = Array.from({length: most.count}, (_, n) => {
      const place = headIndex() * most.count + n;
      const [key, value] = [most.keys[place], most.values[place]];
      return value < 0 ? null : make("tr", {}, make("td", {}, jump(key)), make("td", {className: "context"}, ...context(keys, key, 5)),
        make("td", {}, attnviz.format(value)), make("td", {}, percent(value / total)), make("td", {}, most.even ? attnviz.format(most.even[place]) : "–"));
    });
    body.replaceChildren(...lines.filter(Boolean));
  }
  const strongest = data.strongest && {...data.strongest,
    weights: await unpack(data.strongest.weights, Uint16Array), keys: await unpack(data.strongest.keys, Int32Array)};
  function drawStrongest() {
    if (!strongest) return;
    const {ranks} = strongest;
    const number = strongest.rows.reduce((best, row, n) => (Math.abs(row - state.row) < Math.abs(strongest.rows[best] - state.row) ? n : best), 0);
    const row = strongest.rows[number];
    byId("strongest-name").textContent = say({en: `Where ${headName(state.layer, state.head)} looks from position ${whole(row)}`, zh: `${headName(state.layer, state.head)} 在位置 ${whole(row)} 看向哪里`});
    byId("strongest-note").textContent = strongest.rows.length === queries.count ? "" : say({
      en: `The strongest keys are told here of ${whole(strongest.rows.length)} of ${whole(queries.count)} positions; this one is nearest to the one chosen.`,
      zh: `此处列出 ${whole(queries.count)} 个位置中 ${whole(strongest.rows.length)} 个的最强键；这是离所选位置最近的一个。`});
    const from = (headIndex() * strongest.rows.length + number) * ranks;
    const lines = Array.from({length: ranks}, (_, n) => {
      const [key, weight] = [strongest.keys[from + n], attnviz.half(strongest.weights[from + n])];
      return key < 0 ? null : make("tr", {}, make("td", {}, jump(key)), make("td", {className: "context"}, ...context(keys, key, 5)), make("td", {}, format(weight)));
    });
    byId("strongest").querySelector("tbody").replaceChildren(...lines.filter(Boolean));
  }

  // ---- what flows through the layers
  const flow = data.rolled && {...data.rolled, values: await series(data.rolled.values), even: await series(data.rolled.even), layer: data.rolled.layers.length - 1, kind: data.rolled.even ? "above" : "values", at: null};
  function flowMatrix() {
    const {groups, layer} = flow;
    const one = groups.map((_, g) => read(flow.values, layer * groups.length + g).mean);
    const other = flow.even && groups.map((_, g) => read(flow.even, layer * groups.length + g).mean);
    flow.now = {values: one, even: other};
    return flow.kind === "values" ? one : flow.kind === "even" ? other : one.map((line, g) => line.map((value, bin) => value - other[g][bin]));
  }
  function drawFlow() {
    if (!flow) return;
    const matrix = flowMatrix();
    const [bins, count] = [flow.values.bins, flow.groups.length];
    const all = matrix.flat().filter(Number.isFinite);
    const high = all.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    const diverging = flow.kind === "above";
    const ramp = attnviz.ramp(diverging ? "diverging" : "sequential");
    const small = attnviz.cells(bins, count, (g, bin) => {
      const value = matrix[g][bin];
      return Number.isFinite(value) ? attnviz.colourAt(ramp, diverging ? (value / high + 1) / 2 : value / high) : null;
    });
    const canvas = byId("flow");
    flow.cell = {width: plotWidth() / bins, height: Math.max(4, Math.min(18, Math.round(420 / count)))};
    const [w, h] = [plotWidth(), flow.cell.height * count];
    const context2d = attnviz.sized(canvas, w, h);
    canvas.style.marginLeft = `${ROOM.left}px`;
    context2d.imageSmoothingEnabled = false;
    context2d.fillStyle = attnviz.hatching(context2d, devicePixelRatio || 1);
    context2d.fillRect(0, 0, w, h);
    context2d.drawImage(small, 0, 0, w, h);
    const every = Math.max(1, Math.ceil(13 / flow.cell.height));
    byId("flow-labels").replaceChildren(...flow.groups.flatMap((text, g) => {
      if (g % every) return [];
      const label = make("span", {title: text}, text.replace(/^([\d–]+): .*$/s, "$1")); // its places; all of it when pointed at
      label.style.top = `${(g + 0.5) * flow.cell.height - 5}px`;
      return [label];
    }));
    byId("flow-ticks").replaceChildren(...ticksAlong(queries.count).map((tick) => {
      const label = make("span", {}, whole(tick));
      label.style.left = `${ROOM.left + ((tick + 0.5) / queries.count) * w}px`;
      return label;
    }));
    attnviz.paintBar("flow-colours", ramp);
    byId("flow-low").textContent = diverging ? format(-high) : "0";
    byId("flow-high").textContent = `${format(high)} ${say({en: "share of the input", zh: "输入的占比"})}`;
    canvas.setAttribute("aria-label", say({en: `${count} stretches of the text by ${bins} bins of rows; arrow keys move`, zh: `${count} 段文本 × ${bins} 格行；用方向键移动`}));
    pointFlow(flow.at);
  }
  function pointFlow(at) {
    const cursor = byId("flow-cursor");
    cursor.hidden = !at;
    if (!at) {
      byId("flow-readout").textContent = say({en: "Hover a cell, or use the arrow keys, for its number.", zh: "悬停某格或用方向键查看数值。"});
      return;
    }
    const [group, bin] = at;
    Object.assign(cursor.style, {left: `${ROOM.left + 1 + bin * flow.cell.width}px`, top: `${1 + group * flow.cell.height}px`, width: `${Math.max(3, flow.cell.width)}px`, height: `${flow.cell.height}px`});
    const other = flow.now.even ? say({en: ` · uniform attention ${format(flow.now.even[group][bin])}`, zh: ` · 均匀注意力 ${format(flow.now.even[group][bin])}`}) : "";
    byId("flow-readout").textContent = say({
      en: `rows at ${places({size: flow.size, count: queries.count}, bin)} · from ${flow.groups[group]}: ${format(flow.now.values[group][bin])}`,
      zh: `${places({size: flow.size, count: queries.count}, bin)} 的行 · 来自 ${flow.groups[group]}：${format(flow.now.values[group][bin])}`}) + other;
  }
  function buildFlow() {
    const menu = attnviz.menu("flow-layer", {en: "up to layer", zh: "到第几层"}, flow.layers.map((name, n) => [String(n), name]), String(flow.layer));
    menu.querySelector("select").addEventListener("change", (event) => { flow.layer = +event.target.value; drawFlow(); });
    byId("flow-menus").append(menu);
    if (flow.even) {
      const kinds = [["above", {en: "minus uniform attention", zh: "减去均匀注意力"}], ["values", {en: "as it is", zh: "原值"}], ["even", {en: "uniform attention alone", zh: "仅均匀注意力"}]];
      const kind = attnviz.menu("flow-kind", {en: "show", zh: "显示"}, kinds, flow.kind);
      kind.querySelector("select").addEventListener("change", (event) => { flow.kind = event.target.value; drawFlow(); });
      byId("flow-menus").append(kind);
    }
    const canvas = byId("flow");
    const sizes = () => [flow.groups.length, flow.values.bins];
    attnviz.pointing(canvas, {
      at: () => flow.at, first: () => [0, 0], sizes, point: (place) => pointFlow(flow.at = place),
      under: (event) => attnviz.cellUnder(event, flow.cell, sizes()),
    });
  }

  // ---- all together
  function drawPlaces() {
    byId("place").value = state.row;
    byId("around").replaceChildren(...context(queries, state.row, 14));
    drawChart("rows");
    drawChart("keys");
    drawStrongest();
  }
  function drawHead() {
    byId("chosen").textContent = say({en: `${headName(state.layer, state.head)} along the text`, zh: `${headName(state.layer, state.head)} 沿文本`});
    byId("rows-name").textContent = `${say(statistics[state.statistic].name)}: ${say(statistics[state.statistic].meaning)}`;
    paintHeads();
    drawPlaces();
    drawMost();
  }
  function choose(layer, head) { [state.layer, state.head] = [layer, head]; drawHead(); }
  function build() {
    buildHeads();
    const menu = attnviz.menu("statistic", {en: "statistic", zh: "统计量"}, statistics.map((one, n) => [String(n), one.name]), "0");
    menu.querySelector("select").addEventListener("change", (event) => { state.statistic = +event.target.value; drawHead(); });
    byId("menus").append(menu);
    const captions = [];
    const caption = (words) => { const span = make("span"); span.words = words; captions.push(span); return span; };
    const place = make("input", {id: "place", type: "number", min: "0", max: String(queries.count - 1), step: "1"});
    place.addEventListener("change", () => { charts.rows.put(Math.min(queries.count - 1, Math.max(0, Math.round(+place.value) || 0))); drawPlaces(); });
    const find = make("input", {id: "find", type: "search", autocomplete: "off", spellcheck: "false"});
    const status = make("span", {id: "found", role: "status"});
    find.addEventListener("keydown", (event) => { if (event.key === "Enter") seek(find.value, status); });
    byId("places").append(make("label", {}, caption({en: "position", zh: "位置"}), place), make("label", {}, caption({en: "find a token (Enter: the next)", zh: "查找词元（回车：下一个）"}), find), status);
    const words = () => captions.forEach((span) => { span.textContent = say(span.words); });
    words();
    attnviz.onChange(words);
    listen("rows");
    listen("keys");
    if (flow) buildFlow();
  }
  /** The next token after the chosen position that holds these letters. */
  function seek(text, status) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return;
    const steps = Array.from({length: queries.count}, (_, n) => (state.row + 1 + n) % queries.count);
    const place = steps.find((n) => queries.texts[n].toLowerCase().includes(wanted));
    status.textContent = place === undefined ? say({en: "not in the text", zh: "文本中没有"}) : "";
    if (place !== undefined) { charts.rows.put(place); drawPlaces(); }
  }
  function redraw() { drawHead(); drawFlow(); }
  build();
  redraw();
  attnviz.onChange(redraw);
  attnviz.onResize(redraw);
  attnviz.ready();
})().catch(attnviz.fail);
