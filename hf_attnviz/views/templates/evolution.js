"use strict";
// Lines over decoding steps: one a layer (mean over heads), or one a head of the chosen layer.
(async () => {
  // keys: values are places of keys, never averaged; layered: false where there is one line, of no layer
  const {batch, statistics, steps, layers, heads, keys, layered} = attnviz.data;
  const values = new Float32Array(await attnviz.unpack(attnviz.data.values));
  const byId = (id) => document.getElementById(id);
  const longest = layered ? 14 : 34; // characters of a step's label
  const margin = {top: 12, right: 16, bottom: layered ? 96 : 190, left: keys ? 120 : layered ? 56 : 190};
  const height = layered ? 400 : 480;
  let example = 0;
  let statistic = 0;
  let layer = keys ? 0 : -1; // −1: every layer, mean over heads
  let lines = [];
  let at = null;
  let drawn = null;

  const value = (s, t, l, h) => values[(((example * statistics.length + s) * steps.length + t) * layers.length + l) * heads.length + h];
  function mean(s, t, l) {
    const defined = heads.map((_, h) => value(s, t, l, h)).filter(Number.isFinite);
    return defined.length ? defined.reduce((sum, one) => sum + one, 0) / defined.length : NaN;
  }
  /** The place of the item for which the measure is smallest. */
  const nearest = (items, measure) => items.reduce((best, item, i) => (measure(item, i) < measure(items[best], best) ? i : best), 0);
  const LAYER = {en: "layer", zh: "层"};
  const HEAD = {en: "head", zh: "头"};
  const say = (number) => (keys ? `${number} ${keys[number]}` : String(+number.toPrecision(4)));
  const format = (number) => (Number.isFinite(number) ? say(number) : attnviz.say({en: "undefined", zh: "未定义"}));

  function makeLines() {
    const count = layer < 0 ? layers.length : heads.length;
    const [from, to] = attnviz.theme === "dark" ? [0.28, 1] : [0, 0.86];
    lines = Array.from({length: count}, (_, i) => ({
      name: !layered ? attnviz.say(statistics[statistic].name) : layer < 0 ? `${attnviz.say(LAYER)} ${layers[i]}` : `${attnviz.say(HEAD)} ${heads[i]}`,
      colour: d3.interpolateViridis(count > 1 ? from + ((to - from) * i) / (count - 1) : (from + to) / 2),
      values: steps.map((_, t) => (layer < 0 ? mean(statistic, t, i) : value(statistic, t, layer, i))),
    }));
  }

  function draw() {
    makeLines();
    byId("meaning").textContent = attnviz.say(statistics[statistic].meaning);
    const room = Math.max(420, byId("chart").clientWidth - 8);
    const width = Math.min(room, Math.max(520, steps.length * 46 + margin.left + margin.right));
    const x = d3.scalePoint(d3.range(steps.length), [margin.left, width - margin.right]).padding(0.4);
    const all = keys ? [0, keys.length - 1] : lines.flatMap((line) => line.values).filter(Number.isFinite);
    const highest = all.length ? Math.max(...all) : 1;
    const lowest = all.length ? Math.min(...all) : 0;
    const bottom = lowest < 0 ? lowest : lowest > highest / 2 ? lowest - (highest - lowest) * 0.1 : 0;
    const y = d3.scaleLinear([bottom, highest > bottom ? highest : bottom + 1], [height - margin.bottom, margin.top]);
    if (!keys) y.nice();
    const thin = keys ? Math.ceil(keys.length / 22) : 1;
    const across = (axis) => (keys ? axis.tickValues(d3.range(0, keys.length, thin)) : axis.ticks(6));
    const svg = d3.create("svg").attr("width", width).attr("height", height).attr("tabindex", 0).attr("role", "application")
      .attr("aria-label", attnviz.say({en: "Lines over decoding steps; arrow keys move", zh: "随解码步变化的折线；用方向键移动"}));
    svg.append("g").attr("class", "grid").attr("transform", `translate(${margin.left},0)`)
      .call(across(d3.axisLeft(y)).tickSize(-(width - margin.left - margin.right)).tickFormat("")).select(".domain").remove();
    const upright = across(d3.axisLeft(y));
    if (keys) upright.tickFormat((n) => cut(keys[n]));
    svg.append("g").attr("class", "y").attr("transform", `translate(${margin.left},0)`)
      .attr("font-family", null).call(upright).attr("font-family", "inherit").attr("font-size", 12);
    const every = Math.max(1, Math.ceil((18 * steps.length) / (width - margin.left - margin.right)));
    const axis = svg.append("g").attr("class", "x").attr("transform", `translate(0,${height - margin.bottom})`)
      .call(d3.axisBottom(x).tickValues(d3.range(0, steps.length, every)).tickFormat((t) => cut(steps[t])));
    axis.attr("font-family", "inherit").attr("font-size", 12).selectAll("text")
      .attr("text-anchor", "end").attr("transform", "rotate(-45)").attr("dx", "-0.5em").attr("dy", "0.4em")
      .append("title").text((t) => steps[t]);
    const path = d3.line().defined(Number.isFinite).x((_, t) => x(t)).y((number) => y(number));
    const series = svg.append("g").selectAll("path").data(lines).enter().append("path").attr("class", "series")
      .attr("stroke", (line) => line.colour).attr("d", (line) => path(line.values));
    // A point between two gaps would be no line at all.
    svg.append("g").selectAll("circle").data(lines.flatMap((line) => line.values.map((number, t) => ({line, number, t})))
      .filter(({line, number, t}) => Number.isFinite(number) && !Number.isFinite(line.values[t - 1]) && !Number.isFinite(line.values[t + 1])))
      .enter().append("circle").attr("r", 3).attr("cx", ({t}) => x(t)).attr("cy", ({number}) => y(number)).attr("fill", ({line}) => line.colour);
    const rule = svg.append("line").attr("class", "rule").attr("y1", margin.top).attr("y2", height - margin.bottom).attr("visibility", "hidden");
    const dot = svg.append("circle").attr("class", "dot").attr("r", 4.5).attr("visibility", "hidden");
    byId("chart").replaceChildren(svg.node());
    drawn = {x, y, series, rule, dot};
    svg.on("mousemove", function () {
      const [mx, my] = d3.mouse(this);
      const t = nearest(steps, (_, i) => Math.abs(x(i) - mx));
      const near = nearest(lines, (line) => (Number.isFinite(line.values[t]) ? Math.abs(y(line.values[t]) - my) : Infinity));
      point(t, near);
    });
    svg.on("mouseleave", () => point(null));
    svg.on("focus", () => { if (!at) point(0, 0); });
    svg.on("blur", () => point(null));
    svg.on("keydown", () => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[d3.event.key];
      if (!step || !at) return;
      d3.event.preventDefault();
      point(Math.min(steps.length - 1, Math.max(0, at[0] + step[0])), Math.min(lines.length - 1, Math.max(0, at[1] + step[1])));
    });
    byId("legend").replaceChildren(...lines.map((line, i) => {
      const swatch = attnviz.make("i");
      swatch.style.background = line.colour;
      const button = attnviz.make("button", {type: "button"}, swatch, line.name);
      for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => strengthen(i));
      for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => strengthen(null));
      return button;
    }));
    point(null);
  }
  function cut(text) {
    const characters = Array.from(text);
    return characters.length > longest ? `${characters.slice(0, longest - 1).join("")}…` : text;
  }
  function strengthen(chosen) {
    drawn.series.classed("strong", (_, i) => i === chosen).classed("faded", (_, i) => chosen !== null && i !== chosen);
  }
  function point(t, i) {
    at = t === null ? null : [t, i];
    strengthen(at && i);
    const shown = at && Number.isFinite(lines[i].values[t]);
    drawn.rule.attr("visibility", at ? "visible" : "hidden");
    drawn.dot.attr("visibility", shown ? "visible" : "hidden");
    if (!at) {
      byId("readout").textContent = attnviz.say({en: "Hover the chart, or use the arrow keys, for a number.", zh: "悬停图表或用方向键查看数值。"});
      return;
    }
    drawn.rule.attr("x1", drawn.x(t)).attr("x2", drawn.x(t));
    if (shown) drawn.dot.attr("cx", drawn.x(t)).attr("cy", drawn.y(lines[i].values[t])).attr("fill", lines[i].colour);
    const within = layer < 0 ? "" : `${attnviz.say(LAYER)} ${layers[layer]} · `;
    byId("readout").textContent =
      `${within}${lines[i].name} · ${attnviz.say({en: "step", zh: "步"})} ${steps[t]} · ${format(lines[i].values[t])}`;
  }

  const choice = attnviz.menu("statistic", {en: "Statistic", zh: "统计量"}, statistics.map(({name}, i) => [String(i), name]));
  choice.querySelector("select").addEventListener("change", (event) => { statistic = +event.target.value; draw(); });
  const which = attnviz.menu("lines", {en: "Lines", zh: "折线"}, [
    ...(keys ? [] : [["-1", {en: "layers (mean over heads)", zh: "各层（头的平均）"}]]),
    ...layers.map((name, i) => [String(i), {en: `heads of layer ${name}`, zh: `第 ${name} 层的各头`}]),
  ]);
  which.querySelector("select").addEventListener("change", (event) => { layer = +event.target.value; draw(); });
  if (batch.length > 1) {
    const candidates = attnviz.menu("batch", {en: "Candidate", zh: "候选"}, batch.map((name, i) => [String(i), {en: name, zh: name}]));
    candidates.querySelector("select").addEventListener("change", (event) => { example = +event.target.value; draw(); });
    byId("menus").append(candidates);
  }
  byId("menus").append(...(statistics.length > 1 || !keys ? [choice] : []), ...(layered ? [which] : []));
  draw();
  attnviz.onChange(draw);
  attnviz.onResize(draw);
  attnviz.ready();
})().catch(attnviz.fail);
