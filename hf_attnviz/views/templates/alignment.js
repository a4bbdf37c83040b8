"use strict";
// Source words above, target words below, arrows as thick as the weight; the table of weights. Pointing at a word, or at
// a cell, shows its arrows alone.
(async () => {
  const {axes, levels, full, top, mostArrows} = attnviz.data;
  const sides = {source: attnviz.data.sources, target: attnviz.data.targets};
  const [rows, columns] = [sides.target.texts.length, sides.source.texts.length];
  const values = await attnviz.numbers(attnviz.data.numbers);
  const sizes = axes.map((axis) => Math.max(1, axis.labels.length));
  const chosen = [...attnviz.data.start];
  let threshold = attnviz.data.threshold;
  const {svg} = attnviz;
  const byId = (id) => document.getElementById(id);
  const HEIGHT = 270;
  const LINE = {source: 42, target: HEIGHT - 44};
  const NAMES = {source: {en: "source", zh: "源"}, target: {en: "target", zh: "目标"}};
  let matrix = null;
  let words = {source: [], target: []};
  let layers = {};

  const weight = (target, source) => matrix[target * columns + source];
  const shown = (value) => (Number.isFinite(value) ? attnviz.format(value) : "–");

  /** How wide the words of one side are, and their line with gaps that fill `room` if they can. */
  function measured(side, room) {
    const texts = sides[side].texts;
    const widths = texts.map((text) => Math.max(16, attnviz.textWidth(text, 16)));
    const sum = widths.reduce((total, width) => total + width, 0);
    return {widths, sum, natural: sum + Math.max(20, Math.min(84, (room - sum) / (texts.length + 1))) * texts.length};
  }
  function layout() {
    const room = Math.max(240, byId("lines").clientWidth - 6);
    const both = {source: measured("source", room), target: measured("target", room)};
    const end = Math.max(both.source.natural, both.target.natural);
    for (const [side, {widths, sum, natural}] of Object.entries(both)) {
      const own = end > room ? end : natural; // lines that must be scrolled end together, others stand in the middle
      const gap = (own - sum) / widths.length;
      let x = (end - own + gap) / 2;
      words[side] = widths.map((width, n) => {
        const middle = x + width / 2;
        x += width + gap;
        return {n, x: sides[side].rtl ? end - middle : middle, width};
      });
    }
    const picture = svg("svg", {width: end, height: HEIGHT, viewBox: `0 0 ${end} ${HEIGHT}`, role: "group"});
    layers = {all: svg("g", {class: "arrows"}), one: svg("g", {class: "arrows"}), words: svg("g")};
    picture.append(layers.all, layers.one, layers.words);
    for (const side of ["source", "target"]) words[side].forEach((word) => layers.words.append(drawn(side, word)));
    byId("lines").replaceChildren(picture);
  }
  function drawn(side, word) {
    const text = svg("text", {x: word.x, y: LINE[side]});
    text.textContent = sides[side].texts[word.n];
    const box = {x: word.x - word.width / 2 - 6, y: LINE[side] - 15, width: word.width + 12, height: 30};
    word.element = svg("g", {class: "word", tabindex: word.n || side === "target" ? -1 : 0, role: "button"}, svg("rect", box), text);
    Object.assign(word.element.dataset, {side, n: word.n});
    return word.element;
  }

  /** Arrows [target, source, weight]; where several meet at a word they stand side by side. */
  function draw(layer, arrows, numbersAt) {
    const ends = {source: new Map(), target: new Map()};
    for (const arrow of arrows) {
      for (const [side, n, other] of [["target", arrow[0], words.source[arrow[1]].x], ["source", arrow[1], words.target[arrow[0]].x]]) {
        if (!ends[side].has(n)) ends[side].set(n, []);
        ends[side].get(n).push([other, arrow]);
      }
    }
    const at = (side, n, arrow) => {
      const several = ends[side].get(n).sort((a, b) => a[0] - b[0]);
      const step = Math.min(13, words[side][n].width / several.length);
      return words[side][n].x + (several.findIndex((one) => one[1] === arrow) - (several.length - 1) / 2) * step;
    };
    layer.replaceChildren(...arrows.flatMap((arrow) => {
      const [target, source, value] = arrow;
      const [from, to] = [at("source", source, arrow), at("target", target, arrow)];
      const [begin, end] = [LINE.source + 17, LINE.target - 17];
      const size = 4 + 5 * value;
      const bend = (end - begin) * 0.45;
      const opacity = numbersAt ? 0.95 : 0.3 + 0.65 * value;
      const parts = [
        svg("path", {
          d: `M${from} ${begin} C${from} ${begin + bend} ${to} ${end - size * 1.4 - bend} ${to} ${end - size * 1.4}`,
          "stroke-width": 0.75 + 8 * value, "stroke-opacity": opacity, "data-target": target, "data-source": source,
        }),
        svg("path", {class: "head", "fill-opacity": opacity, d: `M${to} ${end}l${-size} ${-size * 1.5}h${2 * size}z`}),
      ];
      if (numbersAt) {
        const place = numbersAt === "source" ? {x: words.source[source].x, y: LINE.source - 22} : {x: words.target[target].x, y: LINE.target + 30};
        const number = svg("text", place);
        number.textContent = attnviz.format(value, 3);
        parts.push(number);
      }
      return parts;
    }));
  }

  function arrowsFrom(level) {
    const found = [];
    for (let target = 0; target < rows; target++) {
      for (let source = 0; source < columns; source++) {
        const value = weight(target, source);
        if (value >= level && value > 0) found.push([target, source, value]);
      }
    }
    return found.sort((a, b) => b[2] - a[2]);
  }
  function everything() {
    const found = arrowsFrom(threshold);
    draw(layers.all, found.slice(0, mostArrows).reverse());
    const count = found.length.toLocaleString("en");
    const kept = mostArrows.toLocaleString("en");
    let said = {en: `${count} arrows: weights from ${threshold} on.`, zh: `共 ${count} 个箭头：权重不低于 ${threshold}。`};
    if (!found.length) said = {en: `No weight reaches ${threshold}: choose a lower threshold.`, zh: `没有权重达到 ${threshold}：请降低阈值。`};
    if (found.length > mostArrows) said = {en: `${count} weights from ${threshold} on; the ${kept} largest have arrows.`, zh: `有 ${count} 个权重不低于 ${threshold}；只画最大的 ${kept} 个。`};
    return attnviz.say(said);
  }

  /** The arrows of one word alone: those from the threshold on, and its strongest in any case. */
  function ofWord(side, n) {
    const others = side === "target" ? columns : rows;
    const all = Array.from({length: others}, (_, m) => (side === "target" ? [n, m, weight(n, m)] : [m, n, weight(m, n)]))
      .filter((arrow) => arrow[2] > 0).sort((a, b) => b[2] - a[2]);
    return all.filter((arrow, i) => i === 0 || arrow[2] >= threshold);
  }
  let pointed = null;
  function point(side, n, arrows, said) {
    pointed = side;
    layers.all.classList.toggle("faded", side !== null);
    for (const on of document.querySelectorAll(".word.on, #weights th.on")) on.classList.remove("on");
    if (side === null) {
      layers.one.replaceChildren();
      byId("readout").textContent = `${everythingSaid} ${attnviz.say({en: "Point at a word or a cell, or use the arrow keys.", zh: "指向某词或某格，或用方向键。"})}`;
      return;
    }
    draw(layers.one, arrows, side === "target" ? "source" : "target");
    for (const [target, source] of arrows) {
      words.target[target].element.classList.add("on");
      words.source[source].element.classList.add("on");
      document.querySelector(`#weights th[data-target="${target}"]`)?.classList.add("on");
      document.querySelector(`#weights th[data-source="${source}"]`)?.classList.add("on");
    }
    byId("readout").textContent = said;
  }
  let everythingSaid = "";
  const named = (side, n) => `${attnviz.say(NAMES[side])} ${sides[side].texts[n]} (${n})`;
  function pointAt(element) {
    const word = element && element.closest(".word");
    const cell = element && element.closest("#weights td");
    if (word) {
      const [side, n] = [word.dataset.side, +word.dataset.n];
      const arrows = ofWord(side, n);
      const other = side === "target" ? 1 : 0;
      const list = arrows.slice(0, 8).map((arrow) => `${sides[other ? "source" : "target"].texts[arrow[other]]} (${arrow[other]}) ${shown(arrow[2])}`);
      const arrow = side === "target" ? "←" : "→";
      point(side, n, arrows, `${named(side, n)} ${arrow} ${list.join(", ") || "–"}`);
    } else if (cell && cell.dataset.source !== undefined) {
      const [target, source] = [+cell.dataset.target, +cell.dataset.source];
      const value = weight(target, source);
      point("target", target, value > 0 ? [[target, source, value]] : [], [named("target", target), named("source", source), shown(value)].join(" · "));
    } else point(null);
  }

  function table() {
    const ramp = attnviz.ramp("sequential");
    const {make} = attnviz;
    const heading = full ? sides.source.texts.map((text, source) => [text, source]) : Array.from({length: Math.min(top, columns)}, (_, n) => [String(n + 1), null]);
    document.querySelector("#weights thead").replaceChildren(make("tr", {}, make("td"), ...heading.map(([text, source]) => {
      const th = make("th", {scope: "col", dir: "auto"}, text);
      if (source !== null) th.dataset.source = source;
      return th;
    })));
    const cell = (target, source) => {
      const value = weight(target, source);
      const number = Number.isFinite(value) ? value.toFixed(2) : "–";
      const td = make("td", {tabindex: -1, className: Number.isFinite(value) ? "" : "nothing"}, full ? number : `${sides.source.texts[source]} (${source}) ${number}`);
      Object.assign(td.dataset, {target, source});
      if (Number.isFinite(value)) Object.assign(td.style, attnviz.heatAt(ramp, value));
      return td;
    };
    const strongest = (target) => Array.from({length: columns}, (_, source) => source)
      .sort((a, b) => (weight(target, b) || 0) - (weight(target, a) || 0)).slice(0, top);
    document.querySelector("#weights tbody").replaceChildren(...sides.target.texts.map((text, target) => {
      const th = make("th", {scope: "row", dir: "auto"}, text);
      th.dataset.target = target;
      return make("tr", {}, th, ...(full ? sides.source.texts.map((_, source) => source) : strongest(target)).map((source) => cell(target, source)));
    }));
    document.querySelector("#weights tbody td").tabIndex = 0;
    attnviz.paintBar("bar-colours", ramp);
  }

  function refresh() {
    matrix = attnviz.mean(values, attnviz.pages(sizes, chosen), rows * columns);
    everythingSaid = everything();
    table();
    for (const side of ["source", "target"]) {
      for (const word of words[side]) word.element.setAttribute("aria-label", named(side, word.n));
    }
    document.querySelector("#lines svg").setAttribute("aria-label", attnviz.say({en: "Words of both texts; arrow keys move", zh: "两段文本的词；用方向键移动"}));
    point(null);
  }

  function move(from, to) {
    if (!to) return;
    from.setAttribute("tabindex", -1);
    to.setAttribute("tabindex", 0);
    to.focus();
  }
  const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  byId("lines").addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const word = event.target.closest(".word");
    if (!step || !word) return;
    event.preventDefault();
    const {side, n} = word.dataset;
    const own = words[side][+n];
    if (step[1]) {
      const other = step[1] < 0 ? "source" : "target";
      const nearest = words[other].reduce((a, b) => (Math.abs(b.x - own.x) < Math.abs(a.x - own.x) ? b : a));
      if (other !== side) move(word, nearest.element);
    } else move(word, words[side][+n + (sides[side].rtl ? -step[0] : step[0])]?.element);
  });
  byId("weights").addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const cell = event.target.closest("tbody td");
    if (!step || !cell) return;
    event.preventDefault();
    const row = cell.parentElement.parentElement.rows[cell.parentElement.sectionRowIndex + step[1]];
    const next = row && row.cells[cell.cellIndex + step[0]];
    if (next && next.tagName === "TD") move(cell, next);
  });
  for (const box of [byId("lines"), byId("weights")]) {
    box.addEventListener("mouseover", (event) => pointAt(event.target));
    box.addEventListener("mouseleave", () => pointAt(document.activeElement));
    box.addEventListener("focusin", (event) => pointAt(event.target));
    box.addEventListener("focusout", () => point(null));
  }

  attnviz.menus(byId("menus"), axes, chosen, refresh);
  const least = attnviz.menu("threshold", {en: "arrows from weight", zh: "箭头的最小权重"}, levels.map((level) => [String(level), String(level)]), String(threshold));
  least.querySelector("select").addEventListener("change", (event) => { threshold = +event.target.value; refresh(); });
  byId("menus").append(least);
  layout();
  refresh();
  attnviz.onChange(refresh);
  attnviz.onResize(() => { layout(); refresh(); });
  attnviz.ready();
})().catch(attnviz.fail);
