"use strict";
// A sound, words at their times, and what each token looked at: three pictures over one axis of time.
(async () => {
  const {menus, tokens, words, sound, outer, leaves, exact} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const say = attnviz.say;
  const UNDEFINED = 65535;
  const SOUND = 130; // pixels of the spectrogram's height
  const begins = new Float32Array(await attnviz.unpack(attnviz.data.begins));
  const ends = new Float32Array(await attnviz.unpack(attnviz.data.ends));
  const bytes = await attnviz.unpack(attnviz.data.values);
  const values = exact ? new Uint16Array(bytes) : new Uint8Array(bytes);
  const shares = new Uint16Array(await attnviz.unpack(attnviz.data.shares));
  const codes = sound && new Uint8Array(await attnviz.unpack(sound.codes));
  const frames = begins.length;
  const [first, last] = [begins[0], ends[frames - 1]];
  let leaf = attnviz.data.start;
  let chosen = 0; // the token whose line is drawn
  let at = null; // [token, frame]
  let size = null;
  let high = 1;

  const known = (token) => shares[leaf * tokens.length + token] !== UNDEFINED;
  function weight(token, frame) {
    if (!known(token)) return NaN;
    return attnviz.weight(values[(leaf * tokens.length + token) * frames + frame], exact);
  }
  const x = (second) => ((second - first) / (last - first)) * size.width;

  // ---- places

  function layout() {
    const longest = Math.min(150, Math.max(...tokens.map((text) => attnviz.textWidth(text))));
    const room = document.querySelector(".layout").clientWidth - longest - 32;
    const cell = tokens.length > 40 ? Math.max(3, Math.floor(700 / tokens.length)) : 16;
    size = {width: Math.floor(Math.max(room, 300, Math.min((last - first) * 34, 2400))), cell, longest};
    byId("token-labels").style.width = `${longest + 10}px`;
    if (sound) byId("token-labels").style.gridRow = 3;
    const every = Math.max(1, Math.ceil(14 / cell));
    byId("token-labels").replaceChildren(...tokens.flatMap((text, token) => {
      if (token % every) return [];
      const span = attnviz.make("span", {title: text}, attnviz.fitted(text, 150));
      span.style.top = `${(token + 0.5) * cell}px`;
      span.dataset.token = token;
      return [span];
    }));
    placeWords();
    placeSeconds();
  }
  /** Words on as many lines as keep them apart, at most four; what still has no room is cut. */
  function placeWords() {
    const free = [];
    const placed = words.map(([text, from, to]) => {
      const left = x(from);
      const width = attnviz.textWidth(text) + 8;
      let line = free.findIndex((end) => end <= left);
      if (line < 0) line = free.length < 4 ? free.length : free.indexOf(Math.min(...free));
      free[line] = Math.max(free[line] || 0, left + width);
      return {text, from, to, left, line, width};
    });
    const height = free.length * 17;
    byId("words").style.height = `${height}px`;
    byId("words").style.width = `${size.width}px`;
    byId("words").replaceChildren(...placed.map((word, i) => {
      const next = placed.slice(i + 1).find((other) => other.line === word.line);
      const room = (next ? next.left : size.width + 10) - word.left - 2;
      const shown = room < Math.min(word.width, 14) ? "" : word.text; // what has no room is told when pointed at
      const span = attnviz.make("span", {title: `${word.text} · ${word.from.toFixed(2)}–${word.to.toFixed(2)} s`}, shown);
      Object.assign(span.style, {left: `${word.left}px`, top: `${word.line * 17}px`, height: `${height - word.line * 17}px`, maxWidth: `${Math.max(2, room)}px`});
      return span;
    }));
  }
  function placeSeconds() {
    const steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
    const step = steps.find((one) => x(first + one) >= 46) || 10;
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const marks = [];
    for (let n = Math.ceil(first / step - 1e-6); n * step <= last + 1e-6; n++) {
      const span = attnviz.make("span", {}, `${(n * step).toFixed(digits)} s`);
      span.style.left = `${x(n * step)}px`;
      marks.push(span);
    }
    byId("seconds").style.width = `${size.width}px`;
    byId("seconds").replaceChildren(...marks);
  }

  // ---- drawing

  function stretched(context, columns, rows, colour, width, height, left = 0, smooth = false) {
    context.imageSmoothingEnabled = smooth;
    context.drawImage(attnviz.cells(columns, rows, colour), left, 0, width, height);
  }
  let grey = null; // the sound as a picture, kept between strokes
  function drawSound() {
    if (!sound) return;
    const canvas = byId("sound");
    const context = attnviz.sized(canvas, size.width, SOUND);
    canvas.setAttribute("aria-label", say({en: "Spectrogram of the sound", zh: "声音的频谱图"}));
    if (!grey || grey.theme !== attnviz.theme || grey.width !== size.width) {
      grey = Object.assign(document.createElement("canvas"), {width: size.width, height: SOUND});
      Object.assign(grey, {theme: attnviz.theme});
      const dark = attnviz.theme === "dark";
      stretched(grey.getContext("2d"), sound.columns, sound.bands, (row, column) => {
        const level = codes[(sound.bands - 1 - row) * sound.columns + column] / 255;
        const shade = dark ? 24 + 190 * level : 255 - 215 * level;
        return [shade, shade, shade];
      }, x(sound.ends) - x(sound.begins), SOUND, x(sound.begins), true);
    }
    context.drawImage(grey, 0, 0, size.width, SOUND);
    context.strokeStyle = attnviz.color("accent");
    context.globalAlpha = 0.55;
    context.lineWidth = 1;
    context.beginPath();
    for (const [, from] of words) {
      context.moveTo(x(from), 0);
      context.lineTo(x(from), SOUND);
    }
    context.stroke();
    context.globalAlpha = 1;
    if (!known(chosen)) return;
    let most = 0;
    for (let frame = 0; frame < frames; frame++) most = Math.max(most, weight(chosen, frame));
    for (const [colour, thick] of [[attnviz.color("background"), 4], [attnviz.color("accent"), 1.8]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.beginPath();
      for (let frame = 0; frame < frames; frame++) {
        const height = SOUND - 3 - (weight(chosen, frame) / (most || 1)) * (SOUND - 10);
        context.lineTo(x((begins[frame] + ends[frame]) / 2), height);
      }
      context.stroke();
    }
    if (at) {
      context.fillStyle = attnviz.color("accent");
      context.globalAlpha = 0.3;
      context.fillRect(x(begins[at[1]]), 0, Math.max(1.5, x(ends[at[1]]) - x(begins[at[1]])), SOUND);
    }
  }
  function paint() {
    high = 0;
    for (let token = 0; token < tokens.length; token++) {
      for (let frame = 0; frame < frames; frame++) high = Math.max(high, weight(token, frame) || 0);
    }
    high = high || 1;
    const ramp = attnviz.ramp("sequential");
    const canvas = byId("heat");
    const context = attnviz.sized(canvas, size.width, size.cell * tokens.length);
    canvas.setAttribute("aria-label", say({
      en: `Weights of ${tokens.length} tokens on ${frames} frames; arrow keys move`, zh: `${tokens.length} 个词元对 ${frames} 帧的权重；用方向键移动`}));
    stretched(context, frames, tokens.length, (token, frame) => {
      const value = weight(token, frame);
      return Number.isFinite(value) ? attnviz.colourAt(ramp, value / high) : null;
    }, size.width, size.cell * tokens.length);
    context.fillStyle = attnviz.hatching(context, 1);
    for (let token = 0; token < tokens.length; token++) {
      if (!known(token)) context.fillRect(0, token * size.cell, size.width, size.cell);
    }
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-middle").textContent = attnviz.format(high / 2, 2);
    byId("bar-high").textContent = `${attnviz.format(high, 2)} ${say({en: "weight", zh: "权重"})}`;
    point(at);
  }

  // ---- telling and choosing

  function point(place) {
    at = place;
    for (const span of byId("token-labels").children) span.classList.toggle("chosen", +span.dataset.token === (at ? at[0] : chosen));
    const cursor = byId("cursor");
    cursor.hidden = !at;
    const word = at && words.findIndex(([, from, to]) => from <= begins[at[1]] + 1e-4 && begins[at[1]] + 1e-4 < to);
    [...byId("words").children].forEach((span, i) => span.classList.toggle("current", i === word));
    drawSound();
    if (!at) {
      byId("readout").textContent = say({en: `The line is “${tokens[chosen]}”. Hover a frame, or use the arrow keys, for its weight.`, zh: `折线为“${tokens[chosen]}”。悬停某帧或用方向键查看权重。`});
      return;
    }
    const [token, frame] = at;
    const width = Math.max(3, x(ends[frame]) - x(begins[frame]));
    Object.assign(cursor.style, {left: `${x(begins[frame])}px`, top: `${token * size.cell}px`, width: `${width}px`, height: `${size.cell}px`});
    const time = `${begins[frame].toFixed(2)}–${ends[frame].toFixed(2)} s`;
    const spoken = word >= 0 ? [`${say({en: "in", zh: "在"})} ${words[word][0]} (${words[word][1].toFixed(2)}–${words[word][2].toFixed(2)} s)`] : [];
    byId("readout").textContent = [tokens[token], time, attnviz.format(weight(token, frame)), ...spoken].join(" · ");
  }
  function frameAt(pixel) {
    const second = first + (pixel / size.width) * (last - first);
    let [low, up] = [0, frames - 1];
    while (low < up) {
      const middle = (low + up) >> 1;
      if (ends[middle] <= second) low = middle + 1;
      else up = middle;
    }
    return low;
  }
  const heat = byId("heat");
  function under(event) {
    const box = heat.getBoundingClientRect();
    const token = Math.floor((event.clientY - box.top) / size.cell);
    return [Math.min(tokens.length - 1, Math.max(0, token)), frameAt(Math.min(size.width - 0.01, Math.max(0, event.clientX - box.left)))];
  }
  heat.addEventListener("mousemove", (event) => point(under(event)));
  heat.addEventListener("mouseleave", () => { if (document.activeElement !== heat) point(null); });
  heat.addEventListener("click", (event) => {
    const place = under(event);
    [chosen] = place;
    point(place);
  });
  heat.addEventListener("focus", () => { if (!at) point([chosen, 0]); });
  heat.addEventListener("blur", () => point(null));
  heat.addEventListener("keydown", (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step || !at) return;
    event.preventDefault();
    const wide = event.shiftKey ? 25 : 1;
    chosen = Math.min(tokens.length - 1, Math.max(0, at[0] + step[0]));
    point([chosen, Math.min(frames - 1, Math.max(0, at[1] + step[1] * wide))]);
  });
  if (sound) {
    byId("sound").addEventListener("mousemove", (event) => {
      point([chosen, frameAt(Math.min(size.width - 0.01, Math.max(0, event.clientX - byId("sound").getBoundingClientRect().left)))]);
    });
    byId("sound").addEventListener("mouseleave", () => point(null));
  }

  function places() {
    const change = (menu, then) => menu.querySelector("select").addEventListener("change", (event) => then(+event.target.value));
    const firstMenu = attnviz.menu("outer", menus[0], outer.map((text, i) => [String(i), text]), String(leaves[leaf].outer));
    change(firstMenu, (which) => {
      const alike = leaves.findIndex((one) => one.outer === which && say(one.inner) === say(leaves[leaf].inner));
      leaf = alike < 0 ? leaves.findIndex((one) => one.outer === which) : alike;
      places();
      paint();
    });
    const within = leaves.flatMap((one, i) => (one.outer === leaves[leaf].outer ? [[String(i), one.inner]] : []));
    const own = [firstMenu];
    if (within.length > 1) {
      const second = attnviz.menu("inner", menus[1], within, String(leaf));
      change(second, (which) => { leaf = which; paint(); });
      own.push(second);
    }
    byId("menus").replaceChildren(...own);
  }
  places();
  layout();
  paint();
  byId("times").hidden = !words.length;
  byId("time-rows").replaceChildren(...words.map(([text, from, to]) => attnviz.make(
    "tr", {}, ...[text, from.toFixed(2), to.toFixed(2)].map((cell) => attnviz.make("td", {}, cell)))));
  attnviz.onChange(() => { layout(); paint(); });
  attnviz.onResize(() => { layout(); paint(); });
  attnviz.ready();
})().catch(attnviz.fail);
