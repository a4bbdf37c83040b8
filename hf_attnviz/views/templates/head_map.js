"use strict";
// Heads as points, told of one by one; beside them, where it is known, how far they are apart in cluster order.
(async () => {
  const {heads, names, statistics, order, unit} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const {make, say} = attnviz;
  const svg = byId("head-map");
  const canvas = byId("likeness");
  const unpack = async (text) => text && new Float32Array(await attnviz.unpack(text));
  const numbers = await unpack(attnviz.data.numbers);
  const likeness = await unpack(attnviz.data.likeness);
  const points = [...svg.querySelectorAll(".point")].map((group, i) => {
    const circle = group.querySelector("circle");
    return {group, head: heads[i], x: +circle.getAttribute("cx"), y: +circle.getAttribute("cy")};
  });
  const cell = canvas ? Math.max(2, Math.min(26, Math.floor(420 / names.length))) : 0;
  let at = null; // the head that is pointed at, and, in the square, the other one
  let labels = [];

  const format = (value) => attnviz.format(value, 3);
  const apart = (one, other) => likeness[one * names.length + other];
  function nearest(head) {
    if (!likeness) return "";
    const near = names.map((_, n) => n).filter((n) => n !== head && Number.isFinite(apart(head, n))).sort((a, b) => apart(head, a) - apart(head, b)).slice(0, 3);
    return near.length ? say({en: "nearest: ", zh: "最近："}) + near.map((n) => `${names[n]} ${format(apart(head, n))}`).join(", ") : "";
  }
  const about = (head) => {
    const [, layer, number] = /^L(\d+)H(\d+)$/.exec(names[head]) || [];
    return layer === undefined ? names[head] : `${names[head]} (${say({en: `layer ${layer}, head ${number}`, zh: `第 ${layer} 层，第 ${number} 头`})})`;
  };
  function point(head, other = null) {
    at = head === null ? null : [head, other];
    for (const one of points) {
      one.group.classList.toggle("pointed", one.head === head);
      one.group.classList.toggle("other", other !== null && other !== head && one.head === other);
    }
    labels.forEach((label, i) => label.classList.toggle("pointed", order[i] === head || order[i] === other));
    showCell();
    if (head === null) {
      byId("readout").textContent = say({en: "Point at a head, or use the arrow keys.", zh: "指向某个头，或用方向键。"});
    } else if (other !== null && other !== head) {
      byId("readout").textContent = `${about(head)} · ${about(other)} · ${format(apart(head, other))} ${say(unit)}`.trim();
    } else {
      const told = statistics.map((name, n) => `${say(name)} ${format(numbers[n * names.length + head])}`);
      byId("readout").textContent = [about(head), ...told, nearest(head)].filter(Boolean).join(" · ");
    }
  }

  // ---- the map
  function closest(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const [mx, my] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const found = points.reduce((best, one) => (Math.hypot(one.x - mx, one.y - my) < Math.hypot(best.x - mx, best.y - my) ? one : best));
    return Math.hypot(found.x - mx, found.y - my) < 26 ? found.head : null;
  }
  /** The next head to the right or left, above or below: every head can be reached so, also those on one spot. */
  function towards(from, dx, dy) {
    const sorted = [...points].sort((a, b) => (dx ? a.x - b.x || a.y - b.y : a.y - b.y || a.x - b.x) || a.head - b.head);
    return sorted[Math.min(sorted.length - 1, Math.max(0, sorted.indexOf(from) + dx + dy))];
  }
  /** Names that would lie on an earlier one are left to pointing. */
  function thinOut() {
    const kept = [];
    for (const {group} of points) {
      const text = group.querySelector("text");
      if (!text) return;
      const box = text.getBoundingClientRect();
      const covered = kept.some((other) => box.left < other.right && other.left < box.right && box.top < other.bottom - 3 && other.top < box.bottom - 3);
      group.classList.toggle("covered", covered);
      if (!covered) kept.push(box);
    }
  }
  const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  svg.addEventListener("mousemove", (event) => { const head = closest(event); if (head !== null || document.activeElement !== svg) point(head); });
  svg.addEventListener("mouseleave", () => { if (document.activeElement !== svg) point(null); });
  svg.addEventListener("focus", () => { if (!at) point(points[0].head); });
  svg.addEventListener("blur", () => point(null));
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS) || !at) return;
    event.preventDefault();
    point(towards(points.find(({head}) => head === at[0]) || points[0], ...ARROWS[event.key]).head);
  });

  // ---- the square
  function showCell() {
    if (!canvas) return;
    byId("cursor").hidden = !at;
    if (!at) return;
    const [row, column] = [order.indexOf(at[0]), order.indexOf(at[1] === null ? at[0] : at[1])];
    const whole = at[1] === null; // a head alone is its row
    Object.assign(byId("cursor").style, {top: `${row * cell}px`, height: `${cell}px`, left: whole ? "0" : `${column * cell}px`, width: `${whole ? names.length * cell : cell}px`});
  }
  function paint() {
    if (!canvas) return;
    const known = likeness.filter(Number.isFinite);
    const high = known.length ? known.reduce((a, b) => Math.max(a, b)) || 1 : 1;
    const ramp = attnviz.ramp("sequential");
    const side = names.length * cell;
    const context = attnviz.sized(canvas, side, side);
    const hatch = attnviz.hatching(context, devicePixelRatio || 1);
    order.forEach((one, row) => order.forEach((other, column) => {
      const value = apart(one, other);
      context.fillStyle = Number.isFinite(value) ? `rgb(${attnviz.colourAt(ramp, value / high)})` : hatch;
      context.fillRect(column * cell, row * cell, cell, cell);
    }));
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-high").textContent = `${format(high)} ${say(unit)}`;
  }
  if (canvas) {
    labels = order.map((head) => make("span", {}, names[head]));
    labels.forEach((label) => byId("order").append(label, " "));
    labels.forEach((label, i) => {
      label.addEventListener("mouseenter", () => point(order[i]));
      label.addEventListener("mouseleave", () => point(null));
    });
    const sizes = [names.length, names.length];
    attnviz.pointing(canvas, {
      at: () => at && [order.indexOf(at[0]), order.indexOf(at[1] === null ? at[0] : at[1])],
      first: () => [0, 0], sizes: () => sizes, point: (place) => (place ? point(...place.map((n) => order[n])) : point(null)),
      under: (event) => attnviz.cellUnder(event, {width: cell, height: cell}, sizes),
    });
  }
  paint();
  thinOut();
  point(null);
  attnviz.onChange(() => { paint(); point(...(at || [null])); });
  attnviz.ready();
})().catch(attnviz.fail);
