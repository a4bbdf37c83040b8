"use strict";
// For each method four small charts: its removal curve against the band of random rankings.
(() => {
  const {shares, tests, methods, draws} = attnviz.data;
  const size = {width: 260, height: 140, left: 34, right: 8, top: 6, bottom: 20};
  const readout = document.getElementById("readout");
  const defined = (numbers) => numbers.filter((number) => number !== null);
  const signed = (number) => (number === null ? attnviz.say({en: "undefined", zh: "未定义"}) : number.toFixed(3).replace("-", "−"));
  const x = (n) => size.left + ((n + 0.5) * (size.width - size.left - size.right)) / shares.length;

  /** One scale for all charts of a measure, so that methods and ways can be compared. */
  function scale(measure) {
    const all = [0];
    tests.forEach((test, t) => {
      if (test.measure !== measure) return;
      all.push(...defined(test.low), ...defined(test.high));
      for (const method of methods) all.push(...defined(method.curves[t]));
    });
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (high - low < 1e-6) high = low + 1e-6;
    const step = [1, 2, 2.5, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10((high - low) / 3))).find((n) => (high - low) / n <= 4);
    low = Math.floor(low / step + 0.1) * step; // what is hardly below a line does not open a field of its own
    high = Math.ceil(high / step - 0.1) * step;
    const y = (value) => size.height - size.bottom - ((value - low) / (high - low)) * (size.height - size.top - size.bottom);
    const ticks = Array.from({length: Math.round((high - low) / step) + 1}, (_, n) => low + n * step);
    const digits = Math.max(0, Math.min(7, -Math.floor(Math.log10(step)) + (step / 10 ** Math.floor(Math.log10(step)) === 2.5 ? 1 : 0)));
    return {y, ticks, format: (value) => (Math.abs(value) < step / 1e6 ? "0" : value.toFixed(digits).replace("-", "−"))};
  }
  const scales = Object.fromEntries([...new Set(tests.map((test) => test.measure))].map((measure) => [measure, scale(measure)]));

  /** The points of a line; what is undefined is left out. */
  const line = (values, y) => values.map((value, n) => (value === null ? null : `${x(n).toFixed(1)},${y(value).toFixed(1)}`)).filter(Boolean).join(" ");

  function chart(method, t) {
    const test = tests[t];
    const {y, ticks, format} = scales[test.measure];
    const passes = method.beats[t];
    const svg = attnviz.svg("svg", {viewBox: `0 0 ${size.width} ${size.height}`, role: "img"});
    svg.setAttribute("aria-label", `${attnviz.say(method.name)}, ${attnviz.say(test.name)}`);
    for (const tick of ticks) {
      svg.append(attnviz.svg("line", {class: Math.abs(tick) < 1e-12 ? "zero" : "grid", x1: size.left, x2: size.width - size.right, y1: y(tick), y2: y(tick)}));
      const label = attnviz.svg("text", {x: size.left - 5, y: y(tick) + 3.5, "text-anchor": "end"});
      label.textContent = format(tick);
      svg.append(label);
    }
    shares.forEach((share, n) => {
      const label = attnviz.svg("text", {x: x(n), y: size.height - 6, "text-anchor": "middle"});
      label.textContent = share;
      svg.append(label);
    });
    svg.append(attnviz.svg("polygon", {class: "band", points: `${line(test.high, y)} ${line(test.low, y).split(" ").reverse().join(" ")}`.trim()}));
    svg.append(attnviz.svg("polyline", {class: "mean", points: line(test.mean, y)}));
    svg.append(attnviz.svg("polyline", {class: "own", points: line(method.curves[t], y)}));
    method.curves[t].forEach((value, n) => {
      if (value !== null) svg.append(attnviz.svg("circle", {class: "dot", cx: x(n), cy: y(value), r: 3}));
      const width = (size.width - size.left - size.right) / shares.length;
      const hit = attnviz.svg("rect", {class: "hit", x: x(n) - width / 2, y: 0, width, height: size.height});
      hit.addEventListener("mouseenter", () => tell(method, t, n));
      svg.append(hit);
    });
    const caption = document.createElement("figcaption");
    const mark = attnviz.make("span", {className: passes === null ? "quiet" : passes ? "passes" : "fails"});
    mark.textContent = passes === null ? "–" : passes ? "✓" : "✗";
    const beaten = attnviz.make("span", {className: "quiet beaten", textContent: [attnviz.say(test.good), ...(method.beaten[t] === null ? [] : [attnviz.say({en: `beats ${method.beaten[t]} of ${draws}`, zh: `胜过 ${draws} 个随机中的 ${method.beaten[t]} 个`})])].join(" · ")});
    caption.append(mark, ` ${attnviz.say(test.name)}`, beaten);
    const figure = document.createElement("figure");
    figure.append(caption, svg);
    return figure;
  }
  function tell(method, t, n) {
    const test = tests[t];
    readout.textContent = `${attnviz.say(method.name)} · ${attnviz.say(test.name)} · ${shares[n]}: ${signed(method.curves[t][n])} · ` +
      attnviz.say({en: `random ${signed(test.mean[n])} (5–95 %: ${signed(test.low[n])} to ${signed(test.high[n])})`,
        zh: `随机 ${signed(test.mean[n])}（5–95 %：${signed(test.low[n])} 至 ${signed(test.high[n])}）`});
  }
  function draw() {
    document.querySelectorAll(".method .charts").forEach((box, m) => box.replaceChildren(...tests.map((_, t) => chart(methods[m], t))));
    readout.textContent = attnviz.say({en: "Hover a chart for its numbers.", zh: "将指针移到图上可查看数值。"});
  }
  try {
    draw();
    attnviz.onChange(draw);
    attnviz.ready();
  } catch (error) {
    attnviz.fail(error);
  }
})();
