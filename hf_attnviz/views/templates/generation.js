"use strict";
// A generation: one chosen step for the text, the map of keys × steps and the lines; a slider and a button play the steps.
(async () => {
  const {generations, start, exact} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const {make, say} = attnviz;
  const canvas = byId("heat");
  const TEMPO = 700; // milliseconds a step
  const [WIDE, HIGH] = [240, 74]; // of a line's picture, in its own units
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const state = {which: 0, layer: start[0], head: start[1], step: 0};
  const MEAN = -1;
  let one = null; // the generation that is shown
  let picture = 0; // which of its pictures
  let cell = null; // pixels of a cell
  let highest = 1; // the largest weight of the picture
  let [at, pointed] = [null, null]; // the cell [step, place] and the token [paragraph, place] that are pointed at
  let [paragraphs, lines, clock] = [[], [], null];

  async function opened(data) {
    if (data.values) return data;
    const raw = await attnviz.unpack(data.weights);
    data.steps = data.counts.length;
    data.columns = Math.ceil(data.keys.length / data.bin);
    data.values = Float32Array.from(exact ? new Uint16Array(raw) : new Uint8Array(raw), (code) => attnviz.weight(code, exact));
    for (const row of data.undefined) data.values.fill(NaN, row * data.columns, (row + 1) * data.columns);
    data.numbers = new Float32Array(await attnviz.unpack(data.numbers));
    data.ends = new Float32Array(await attnviz.unpack(data.ends));
    return data;
  }
  const there = (step, place) => place * one.bin < one.counts[step];
  const weight = (step, place) => one.values[(picture * one.steps + step) * one.columns + place];
  const number = (statistic, step) => one.numbers[(picture * one.statistics.length + statistic) * one.steps + step];
  const end = (which, statistic, step) => one.ends[(which * one.statistics.length + statistic) * one.steps + step];
  const format = (value) => attnviz.format(value, 3);

  // ---- words
  const stepName = (step) => `${step} → ${one.produced[step]}`;
  const headName = (head) => (head === MEAN ? {en: "mean over heads", zh: "各头平均"} : {en: `head ${head}`, zh: `第 ${head} 头`});
  const shown = () => say({en: `layer ${one.layers[state.layer]}, ${headName(state.head).en}`, zh: `第 ${one.layers[state.layer]} 层，${headName(state.head).zh}`});
  function keyName(place) {
    const [first, last] = [place * one.bin, Math.min((place + 1) * one.bin, one.keys.length) - 1];
    return first === last ? `${one.keys[first]} (${first})` : `${one.keys[first]} … ${one.keys[last]} (${first}–${last})`;
  }
  const doing = (step) => say({en: `reads “${one.read[step]}”, puts out “${one.produced[step]}”`, zh: `读入“${one.read[step]}”，产出“${one.produced[step]}”`});
  function told(step, place) {
    const read = say({en: `step ${step} ${doing(step)}`, zh: `第 ${step} 步${doing(step)}`});
    const value = there(step, place) ? format(weight(step, place)) : say({en: "not there yet", zh: "尚不存在"});
    return `${read} · ${say({en: "key", zh: "键"})} ${keyName(place)} · ${value}`;
  }

  // ---- menus
  function menu(id, label, put) {
    const made = attnviz.menu(id, label, []);
    const select = made.querySelector("select");
    select.addEventListener("change", () => { put(+select.value); show().catch(attnviz.fail); });
    byId("menus").append(made);
    return select;
  }
  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, words]) => {
      const option = make("option", {value: String(value)}, say(words));
      option.words = words;
      return option;
    }));
    select.value = String(chosen);
  }
  const whichMenu = generations.length > 1 ? menu("which", {en: "Attention", zh: "注意力"}, (value) => { state.which = value; state.step = 0; at = pointed = null; }) : null;
  const layerMenu = menu("layer", {en: "Layer", zh: "层"}, (value) => { state.layer = value; });
  const headMenu = menu("head", {en: "Head", zh: "头"}, (value) => { state.head = value; });
  const headsOf = (layer) => one.places.filter(([found]) => found === layer).map(([, head]) => head);

  // ---- the text
  /** Paragraphs of tokens; each token has the key that it is, or null, and the step that put it out, or null. */
  function texts() {
    const produced = one.produced.map((text, step) => ({text, key: null, step}));
    if (one.cross) {
      return [[{en: "what is looked at", zh: "被看的文本"}, one.keys.map((text, key) => ({text, key, step: null}))],
        [{en: "what is generated", zh: "生成的文本"}, produced]];
    }
    const all = one.keys.map((text, key) => ({text, key, step: null}));
    one.counts.forEach((count, step) => {
      if (count < all.length) all[count].step = step;
      else if (step === one.steps - 1) all.push(produced[step]);
    });
    return [[{en: "prompt | generated", zh: "提示 | 生成"}, all]];
  }
  function buildTexts() {
    paragraphs = texts().map(([caption, tokens], p) => {
      const heading = make("h3", {}, say(caption));
      const box = make("div", {className: "tokens", tabindex: "0", role: "application"});
      const spans = tokens.map((token, i) => {
        const span = make("span", {}, token.text);
        span.dataset.index = i;
        if (token.step !== null) span.classList.add("steps");
        if (!one.cross && i === one.counts[0] - 1) span.classList.add("prompt-ends");
        return span;
      });
      spans.forEach((span) => box.append(span, "\u200b"));
      const index = (event) => { const span = event.target.closest("span"); return span && +span.dataset.index; };
      box.addEventListener("mouseover", (event) => { const i = index(event); if (i !== null) pointText([p, i]); });
      box.addEventListener("mouseleave", () => { if (document.activeElement !== box) pointText(null); });
      box.addEventListener("click", (event) => { const i = index(event); if (i !== null && tokens[i].step !== null) go(tokens[i].step); });
      box.addEventListener("focus", () => { if (!pointed || pointed[0] !== p) pointText([p, 0]); });
      box.addEventListener("blur", () => pointText(null));
      box.addEventListener("keydown", (event) => {
        const by = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -tokens.length, End: tokens.length}[event.key];
        const from = pointed && pointed[0] === p ? pointed[1] : 0;
        if (event.key === "Enter" && tokens[from].step !== null) go(tokens[from].step);
        if (by === undefined) return;
        event.preventDefault();
        pointText([p, Math.min(tokens.length - 1, Math.max(0, from + by))]);
        spans[pointed[1]].scrollIntoView({block: "nearest"});
      });
      return {caption, heading, box, tokens, spans};
    });
    byId("texts").replaceChildren(...paragraphs.map(({heading, box}) => make("div", {className: "text"}, heading, box)));
  }
  function paintTexts(ramp) {
    for (const {caption, heading, box, tokens, spans} of paragraphs) {
      heading.textContent = say(caption);
      box.setAttribute("aria-label", say({en: `${caption.en}; arrow keys move`, zh: `${caption.zh}；用方向键移动`}));
      tokens.forEach((token, i) => {
        const span = spans[i];
        const known = token.key !== null && token.key < one.counts[state.step];
        const value = known ? weight(state.step, Math.floor(token.key / one.bin)) : NaN;
        const colour = Number.isFinite(value) ? colourOf(ramp, value) : null;
        span.style.background = colour ? `rgb(${colour})` : "";
        span.style.color = colour ? attnviz.lettersOn(colour) : "";
        const current = token.step === state.step;
        span.classList.toggle("put-out", current);
        if (current) {
          span.setAttribute("aria-current", "step");
          const low = span.offsetTop - box.offsetTop; // a long text scrolls along inside its box
          if (low < box.scrollTop || low > box.scrollTop + box.clientHeight - 30) box.scrollTop = low - box.clientHeight / 2;
        } else span.removeAttribute("aria-current");
        span.classList.toggle("later", !current && (token.step !== null ? token.step > state.step : !known));
      });
    }
  }
  function pointText(to) {
    for (const {spans} of paragraphs) for (const span of spans) span.classList.remove("pointed");
    pointed = to && paragraphs[to[0]] && to[1] < paragraphs[to[0]].tokens.length ? to : null;
    const box = byId("token-readout");
    box.textContent = say({en: "Point at a token, or use the arrow keys, for its weight at this step.", zh: "指向某词元或用方向键，可看到它在该步的权重。"});
    if (!pointed) return;
    const {tokens, spans} = paragraphs[pointed[0]];
    const token = tokens[pointed[1]];
    spans[pointed[1]].classList.add("pointed");
    const source = token.step === null ? "" : say({en: ` · put out by step ${token.step}`, zh: ` · 由第 ${token.step} 步产出`});
    box.textContent = token.key !== null ? told(state.step, Math.floor(token.key / one.bin)) + source : `${token.text}${source}`;
  }

  // ---- the map
  const columnText = (place) => (one.bin === 1 ? one.keys[place] : `${one.keys[place * one.bin]} …`);
  function layout() {
    const names = one.produced.map((_, step) => attnviz.fitted(stepName(step), 150));
    const longest = Math.max(...names.map((text) => attnviz.textWidth(text)));
    const room = Math.max(120, document.querySelector("main").clientWidth - longest - 90);
    const whole = (size) => (size >= 3 ? Math.floor(size) : size);
    cell = {width: whole(Math.min(30, room / one.columns)), height: whole(Math.max(Math.min(24, 430 / one.steps), 1.5))};
    const put = (box, count, size, room, text, place) => {
      const every = Math.max(1, Math.ceil(14 / size));
      box.replaceChildren(...Array.from({length: Math.ceil(count / every)}, (_, n) => {
        const span = make("span", {title: text(n * every), "data-index": n * every}, attnviz.fitted(text(n * every), room));
        place(span, (n * every + 0.5) * size);
        return span;
      }));
    };
    const widest = Math.min(110, Math.max(...Array.from({length: one.columns}, (_, n) => attnviz.textWidth(columnText(n)))));
    byId("column-labels").style.height = `${widest + 14}px`;
    byId("row-labels").style.width = `${longest + 10}px`;
    put(byId("row-labels"), one.steps, cell.height, 150, stepName, (span, y) => { span.style.top = `${y + 1}px`; });
    put(byId("column-labels"), one.columns, cell.width, 110, columnText, (span, x) => {
      span.style.left = `${x + 7}px`;
      span.style.transform = "rotate(-90deg)";
    });
  }
  const colourOf = (ramp, value) => attnviz.colourAt(ramp, Math.sqrt(value / highest));
  function largest() {
    let most = 0;
    for (let step = 0; step < one.steps; step++) {
      for (let place = 0; place < one.columns && there(step, place); place++) if (weight(step, place) > most) most = weight(step, place);
    }
    return most || 1;
  }
  function paint(ramp) {
    const hollow = [];
    const small = attnviz.cells(one.columns, one.steps, (step, place) => {
      if (!there(step, place)) return null;
      const value = weight(step, place);
      if (Number.isFinite(value)) return colourOf(ramp, value);
      hollow.push([step, place]);
      return null;
    });
    const [width, height] = [cell.width * one.columns, cell.height * one.steps];
    const context = attnviz.sized(canvas, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, width, height);
    context.fillStyle = attnviz.hatching(context, devicePixelRatio || 1);
    for (const [step, place] of hollow) context.fillRect(place * cell.width, step * cell.height, cell.width, cell.height);
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-low").textContent = "0";
    byId("bar-middle").textContent = format(highest / 4); // half-way of a square root
    byId("bar-high").textContent = `${format(highest)} ${say({en: "weight", zh: "权重"})}`;
    byId("bar-undefined").hidden = !hollow.length;
    [byId("column-name").textContent, byId("row-name").textContent] = [say({en: "key", zh: "键"}), say({en: "step", zh: "步"})];
    canvas.setAttribute("aria-label", say({
      en: `Heat map of ${one.steps} steps by ${one.columns} keys; arrow keys move, Enter goes to the step`,
      zh: `${one.steps} 步 × ${one.columns} 个键的热力图；方向键移动，回车跳到该步`}));
  }
  function point(step, place) {
    at = step === null ? null : [step, place];
    document.querySelectorAll(".labels .current").forEach((span) => span.classList.remove("current"));
    byId("cursor").hidden = !at;
    if (!at) {
      byId("readout").textContent = say({en: "Hover a cell, or use the arrow keys, for its number; click, or Enter, goes to its step.", zh: "悬停某格或用方向键查看数值；点击或回车跳到该步。"});
      return;
    }
    Object.assign(byId("cursor").style, {left: `${place * cell.width}px`, top: `${step * cell.height}px`,
      width: `${Math.max(cell.width, 3)}px`, height: `${Math.max(cell.height, 3)}px`});
    document.querySelector(`#row-labels [data-index="${step}"]`)?.classList.add("current");
    document.querySelector(`#column-labels [data-index="${place}"]`)?.classList.add("current");
    byId("readout").textContent = told(step, place);
  }
  const sizes = () => [one.steps, one.columns];
  const under = (event) => attnviz.cellUnder(event, cell, sizes());
  attnviz.pointing(canvas, {at: () => at, first: () => [state.step, 0], sizes, under, point: (place) => point(...(place || [null]))});
  canvas.addEventListener("click", (event) => go(under(event)[0]));
  canvas.addEventListener("keydown", (event) => { if (event.key === "Enter" && at) go(at[0]); });

  // ---- the lines
  const across = (step) => (one.steps === 1 ? WIDE / 2 : 4 + (step / (one.steps - 1)) * (WIDE - 8));
  function runs(value) {
    const found = [];
    for (let step = 0; step < one.steps; step++) {
      if (!Number.isFinite(value(step))) continue;
      if (found.length && found[found.length - 1].at(-1) === step - 1) found[found.length - 1].push(step);
      else found.push([step]);
    }
    return found;
  }
  function lineOf({name, meaning}, statistic) {
    const all = [0, 1].flatMap((which) => one.counts.map((_, step) => end(which, statistic, step))).filter(Number.isFinite);
    let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    if (low > 0 && low <= high / 2) low = 0;
    if (high <= low) high = low + 1;
    const y = (value) => HIGH - 5 - ((value - low) / (high - low)) * (HIGH - 10);
    const points = (steps, value) => steps.map((step) => `${across(step).toFixed(1)},${y(value(step)).toFixed(1)}`);
    const svg = attnviz.svg("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true"});
    svg.append(attnviz.svg("rect", {class: "frame", x: 0.5, y: 0.5, width: WIDE - 1, height: HIGH - 1}));
    for (const run of runs((step) => end(0, statistic, step))) {
      const back = points([...run].reverse(), (step) => end(0, statistic, step));
      svg.append(attnviz.svg("polygon", {class: "band", points: [...points(run, (step) => end(1, statistic, step)), ...back].join(" ")}));
    }
    for (const run of runs((step) => number(statistic, step))) {
      const line = points(run, (step) => number(statistic, step));
      svg.append(attnviz.svg("polyline", {class: run.length > 1 ? "value" : "dot", points: [...line, ...(run.length > 1 ? [] : line)].join(" ")}));
    }
    const marker = attnviz.svg("line", {class: "marker", y1: 0, y2: HIGH});
    const dot = attnviz.svg("line", {class: "dot"});
    svg.append(marker, dot);
    const value = make("b");
    const figure = make("div", {className: "line", title: say(meaning)}, make("h3", {}, make("span", {}, say(name)), value),
      make("div", {className: "picture"}, make("div", {className: "ends"}, make("span", {}, format(high)), make("span", {}, format(low))), svg));
    const put = (step) => {
      const found = number(statistic, step);
      for (const side of ["x1", "x2"]) { marker.setAttribute(side, across(step)); dot.setAttribute(side, across(step)); }
      for (const side of ["y1", "y2"]) dot.setAttribute(side, Number.isFinite(found) ? y(found) : 0);
      dot.setAttribute("visibility", Number.isFinite(found) ? "visible" : "hidden");
      value.textContent = format(found);
    };
    const stepUnder = (event) => {
      const box = svg.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width * WIDE - 4) / (WIDE - 8);
      return Math.min(one.steps - 1, Math.max(0, Math.round(share * (one.steps - 1))));
    };
    figure.addEventListener("mousemove", (event) => put(stepUnder(event)));
    figure.addEventListener("mouseleave", () => put(state.step));
    figure.addEventListener("click", (event) => go(stepUnder(event)));
    return {figure, put};
  }
  function drawLines() {
    byId("lines-name").textContent = say({en: `Statistics: ${shown()}`, zh: `统计量：${shown()}`});
    lines = one.statistics.map(lineOf);
    byId("lines").replaceChildren(...lines.map(({figure}) => figure));
  }

  // ---- the chosen step
  function goOn() {
    const ramp = attnviz.ramp("sequential");
    paintTexts(ramp);
    pointText(pointed);
    Object.assign(byId("now").style, {top: `${state.step * cell.height}px`, height: `${Math.max(cell.height, 2)}px`});
    document.querySelectorAll("#row-labels .now").forEach((span) => span.classList.remove("now"));
    document.querySelector(`#row-labels [data-index="${state.step}"]`)?.classList.add("now");
    for (const {put} of lines) put(state.step);
    byId("step").value = state.step;
    const words = say({en: `step ${state.step} of 0–${one.steps - 1}: ${doing(state.step)}`, zh: `第 ${state.step} 步（0–${one.steps - 1}）：${doing(state.step)}`});
    byId("step").setAttribute("aria-valuetext", words);
    byId("step-name").textContent = words;
  }
  function go(step) { stop(); state.step = step; goOn(); }
  function stop() {
    clock = clearInterval(clock);
    byId("play").textContent = still.matches ? say({en: "Next step", zh: "下一步"}) : say({en: "▶ Play", zh: "▶ 播放"});
  }
  function next() {
    state.step = Math.min(one.steps - 1, state.step + 1);
    goOn();
    if (state.step === one.steps - 1) stop();
  }
  byId("play").addEventListener("click", () => {
    if (clock) { stop(); return; }
    if (state.step >= one.steps - 1) { state.step = -1; next(); } // from the beginning
    else if (still.matches) next();
    if (still.matches || one.steps === 1) return;
    clock = setInterval(next, TEMPO);
    byId("play").textContent = say({en: "❚❚ Pause", zh: "❚❚ 暂停"});
  });
  byId("step").addEventListener("input", () => go(+byId("step").value));
  still.addEventListener("change", stop);

  const drawAll = () => {
    byId("left-out").textContent = one.leftOut.map(say).join(" ");
    layout();
    paint(attnviz.ramp("sequential"));
    drawLines();
    goOn();
    point(...(at || [null]));
  };
  let latest = 0;
  async function show() {
    const mine = ++latest;
    stop();
    const [found, before] = [await opened(generations[state.which]), one];
    if (mine !== latest) return;
    one = found;
    state.layer = Math.min(state.layer, one.layers.length - 1);
    if (!headsOf(state.layer).includes(state.head)) state.head = MEAN;
    picture = one.places.findIndex(([layer, head]) => layer === state.layer && head === state.head);
    highest = largest();
    if (whichMenu) fill(whichMenu, generations.map(({name}, i) => [i, name]), state.which);
    fill(layerMenu, one.layers.map((name, i) => [i, name]), state.layer);
    fill(headMenu, headsOf(state.layer).map((head) => [head, headName(head)]), state.head);
    byId("step").max = one.steps - 1;
    if (one !== before) buildTexts();
    drawAll();
  }
  await show();
  attnviz.onChange(() => { stop(); drawAll(); });
  attnviz.onResize(drawAll);
  attnviz.ready();
})().catch(attnviz.fail);
