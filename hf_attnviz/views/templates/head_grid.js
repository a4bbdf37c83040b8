"use strict";
// Every head as a small coarse map over its number by a statistic; the one that is chosen is unpacked and enlarged.
(async () => {
  const {groups, exact, within, shades, undefined: none} = attnviz.data;
  const {byId, clamp, enlarge, font, format, put, shade, token} = attnviz.heads;
  const {say, make} = attnviz;
  const [grid, map, lens] = ["grid", "map", "lens"].map(byId);
  const large = attnviz.enlargedHead();
  const state = {
    group: attnviz.data.start.group, layer: attnviz.data.start.layer, head: 0, statistic: attnviz.data.start.statistic,
    small: "maps", top: "shared", at: {layer: attnviz.data.start.layer, head: 0},
  };
  let group = null; // what is drawn: labels, thumbnails, statistics as numbers
  let cellOfGrid = null;

  // ---- reading
  async function open(number) {
    const one = groups[number];
    const read = async (text) => text && new Float32Array(await attnviz.unpack(text));
    const statistics = await Promise.all(one.statistics.map(async (s) => ({...s, values: await read(s.values), even: await read(s.even)})));
    return {...one, keys: one.keys || one.queries, statistics, thumbs: new Uint8Array(await attnviz.unpack(one.thumbs))};
  }
  const number = () => state.layer * group.heads + state.head;
  const headName = (layer, head) => `L${group.layers[layer]}H${head}`;
  const statistic = () => group.statistics[state.statistic];
  const stretchOf = (texts, first, size) => (size === 1 ? token(texts, first)
    : `${token(texts, first)} … ${token(texts, Math.min(first + size, texts.length) - 1)}`);

  // ---- colours
  function limits() {
    const {values, scale} = statistic();
    const known = values.filter(Number.isFinite);
    if (Array.isArray(scale)) return [...scale, scale[0] < 0];
    if (!known.length) return [0, 1, false];
    let [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
    if (low < 0 || scale === "centred") {
      const most = Math.max(-low, high) || 1;
      return [-most, most, true];
    }
    if (low <= high / 2) low = 0;
    return [low, high > low ? high : low + 1, false];
  }
  // ---- all heads
  function gridSizes() {
    const stacked = group.heads > 16;
    document.querySelector(".panes").classList.toggle("stacked", stacked);
    const room = byId("overview").clientWidth - 30;
    const side = clamp(Math.floor(room / group.heads) - 4, 6, 110);
    const maps = state.small === "maps";
    const strip = maps ? (side >= 30 ? 14 : 5) : Math.max(10, Math.min(side, 22));
    return {left: 28, top: 20, side, maps, strip, width: side + 4, height: (maps ? side : 0) + strip + 5};
  }
  /** All thumbnails side by side, a pixel a cell. */
  function atlas() {
    const [rows, columns] = group.blocks.map((size, i) => Math.ceil([group.queries, group.keys][i].length / size));
    const canvas = make("canvas");
    [canvas.width, canvas.height] = [columns * group.heads, rows * group.layers.length];
    const image = new ImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const words = new Uint32Array(new Uint8Array(attnviz.ramp("sequential").flatMap((colour) => [...colour, 255])).buffer);
    const [gap] = new Uint32Array(new Uint8Array([...rgb(attnviz.color("hatch")), 255]).buffer);
    for (let n = 0; n < group.layers.length * group.heads; n++) {
      const codes = group.thumbs.subarray(n * rows * columns, (n + 1) * rows * columns);
      const most = state.top === "own" ? codes.reduce((a, b) => (b === none ? a : Math.max(a, b)), 0) : shades;
      const corner = Math.floor(n / group.heads) * rows * canvas.width + (n % group.heads) * columns;
      codes.forEach((code, i) => {
        pixels[corner + Math.floor(i / columns) * canvas.width + (i % columns)] = code === none ? gap : words[shade(code, most)];
      });
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return {canvas, rows, columns};
  }
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  function paintGrid() {
    cellOfGrid = gridSizes();
    const {left, top, side, maps, strip: high, width, height} = cellOfGrid;
    const context = attnviz.sized(grid, left + width * group.heads + 2, top + height * group.layers.length + 2);
    context.fillStyle = attnviz.color("quiet");
    context.font = font(11);
    context.textBaseline = "middle";
    context.textAlign = "center";
    const every = Math.ceil(18 / width);
    for (let head = 0; head < group.heads; head += every) context.fillText(String(head), left + head * width + side / 2, top / 2);
    context.textAlign = "right";
    group.layers.forEach((layer, i) => context.fillText(String(layer), left - 7, top + i * height + (height - 5) / 2));
    const small = maps && atlas();
    const [low, end, diverging] = statistic() ? limits() : [0, 1, false];
    const ramp = attnviz.ramp(diverging ? "diverging" : "sequential");
    const hatching = attnviz.hatching(context, devicePixelRatio || 1);
    for (let n = 0; n < group.layers.length * group.heads; n++) {
      const [x, y] = [left + (n % group.heads) * width, top + Math.floor(n / group.heads) * height];
      if (maps) {
        context.imageSmoothingEnabled = small.columns > side || small.rows > side;
        context.drawImage(small.canvas, (n % group.heads) * small.columns, Math.floor(n / group.heads) * small.rows, small.columns, small.rows, x, y, side, side);
        context.strokeStyle = attnviz.color("line");
        context.lineWidth = 1;
        context.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1);
      }
      if (!statistic()) continue;
      const value = statistic().values[n];
      const colour = Number.isFinite(value) ? attnviz.colourAt(ramp, (value - low) / (end - low)) : null;
      context.fillStyle = colour ? `rgb(${colour})` : hatching;
      context.fillRect(x, y + (maps ? side + 1 : 0), side, high);
      if (side < 30 || high < 12) continue;
      context.fillStyle = colour ? attnviz.lettersOn(colour) : attnviz.color("text");
      context.font = font(10);
      context.textAlign = "center";
      context.fillText(Number.isFinite(value) ? attnviz.format(value, 2) : "–", x + side / 2, y + (maps ? side + 1 : 0) + high / 2 + 0.5);
    }
    if (statistic()) {
      attnviz.paintBar("statistic-colours", ramp);
      byId("statistic-low").textContent = format(low);
      byId("statistic-high").textContent = format(end);
    }
    for (const id of ["weight-colours", "large-colours"]) attnviz.paintBar(id, attnviz.ramp("sequential"));
    const whole = state.top === "own";
    byId("weight-middle").textContent = whole ? say({en: "a quarter of it", zh: "其四分之一"}) : "0.25";
    byId("weight-high").textContent = whole ? say({en: "head’s largest", zh: "该头最大值"}) : "1";
    marks();
  }
  function marks() {
    const {left, top, width, height} = cellOfGrid;
    const over = (id, layer, head) => put(byId(id), left + head * width, top + layer * height, width - 4, height - 5);
    byId("grid-chosen").hidden = false;
    over("grid-chosen", state.layer, state.head);
    over("grid-cursor", state.at.layer, state.at.head);
    byId("grid-cursor").hidden = state.at.layer === state.layer && state.at.head === state.head;
  }
  /** What is under the pointer, or the head alone: its number, and the block of its small map. */
  function tellGrid(layer, head, block = null) {
    const n = layer * group.heads + head;
    const parts = [headName(layer, head)];
    if (statistic()) {
      parts.push(`${say(statistic().name)} ${format(statistic().values[n])}`);
      if (statistic().even) parts.push(say({en: `uniform attention ${format(statistic().even[n])}`, zh: `均匀注意力 ${format(statistic().even[n])}`}));
    }
    if (block) {
      const [rows, columns] = [Math.ceil(group.queries.length / group.blocks[0]), Math.ceil(group.keys.length / group.blocks[1])];
      const code = group.thumbs[(n * rows + block.row) * columns + block.column];
      const share = code === none ? NaN : (code / shades) ** 2;
      const coarse = Math.max(...group.blocks) > 1;
      parts.push(say({en: "query ", zh: "查询 "}) + stretchOf(group.queries, block.row * group.blocks[0], group.blocks[0]),
        say({en: "key ", zh: "键 "}) + stretchOf(group.keys, block.column * group.blocks[1], group.blocks[1]),
        (coarse ? say({en: "coarse: share ", zh: "粗略：份额 "}) : say({en: "weight ", zh: "权重 "})) + format(share));
    }
    byId("grid-readout").textContent = parts.join(" · ");
  }
  function underGrid(event) {
    const {left, top, side, maps, width, height} = cellOfGrid;
    const place = grid.getBoundingClientRect();
    const [x, y] = [event.clientX - place.left - left, event.clientY - place.top - top];
    const [layer, head] = [clamp(Math.floor(y / height), 0, group.layers.length - 1), clamp(Math.floor(x / width), 0, group.heads - 1)];
    const [inX, inY] = [x - head * width, y - layer * height];
    const inside = maps && inX >= 0 && inX < side && inY >= 0 && inY < side;
    const count = (i, texts) => Math.ceil(texts.length / group.blocks[i]);
    return {layer, head, block: inside ? {row: Math.floor((inY / side) * count(0, group.queries)), column: Math.floor((inX / side) * count(1, group.keys))} : null};
  }
  grid.addEventListener("pointermove", (event) => {
    const found = underGrid(event);
    tellGrid(found.layer, found.head, found.block);
  });
  grid.addEventListener("pointerleave", () => tellGrid(state.at.layer, state.at.head));
  grid.addEventListener("click", (event) => {
    const {layer, head} = underGrid(event);
    choose(layer, head);
  });
  grid.addEventListener("focus", () => tellGrid(state.at.layer, state.at.head));
  grid.addEventListener("keydown", (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(state.at.layer, state.at.head).then(() => map.focus());
    } else if (step) {
      event.preventDefault();
      state.at = {layer: clamp(state.at.layer + step[0], 0, group.layers.length - 1), head: clamp(state.at.head + step[1], 0, group.heads - 1)};
      marks();
      tellGrid(state.at.layer, state.at.head);
    }
  });

  // ---- choosing
  let asked = 0;
  async function choose(layer, head) {
    const mine = ++asked;
    const found = await enlarge(group, layer * group.heads + head);
    if (mine !== asked) return; // another one was chosen meanwhile
    Object.assign(state, {layer, head, at: {layer, head}});
    marks();
    tellGrid(layer, head);
    title();
    large.show(group, found);
    if (byId("map-box").getBoundingClientRect().top > innerHeight - 120) byId("large").scrollIntoView({block: "start"});
  }
  function title() {
    const parts = [headName(state.layer, state.head)];
    if (statistic()) parts.push(`${say(statistic().name)} ${format(statistic().values[number()])}`);
    byId("chosen").textContent = parts.join(" · ");
  }
  function words() {
    const [rows, keys] = group.blocks;
    byId("coarse").textContent = rows * keys === 1
      ? say({en: "Small maps: every weight is a cell of its own.", zh: "小图：每个权重各为一格。"})
      : say({en: `Small maps are coarse: a cell stands for ${rows} × ${keys} weights.`, zh: `小图是粗略的：每格代表 ${rows} × ${keys} 个权重。`});
    byId("fine").textContent = exact ? say({en: "This head is not coarse: every weight is here, as a 16-bit float.", zh: "此头不是粗略的：每个权重都在此，为 16 位浮点数。"})
      : say({en: `This head is not coarse: every weight is here, within ${within}.`, zh: `此头不是粗略的：每个权重都在此，误差不超过 ${within}。`});
    grid.setAttribute("aria-label", say({
      en: `Every head, ${group.layers.length} layers by ${group.heads} heads; arrow keys move, Enter enlarges`,
      zh: `所有注意力头，${group.layers.length} 层 × ${group.heads} 头；用方向键移动，按回车放大`}));
    map.setAttribute("aria-label", say({
      en: `${headName(state.layer, state.head)}, ${group.queries.length} by ${group.keys.length} weights; arrow keys move, plus and minus zoom, Escape goes back`,
      zh: `${headName(state.layer, state.head)}，${group.queries.length} × ${group.keys.length} 个权重；用方向键移动，加减号缩放，Esc 返回`}));
    lens.setAttribute("aria-label", say({en: "The cells around the chosen one", zh: "所选格四周的各格"}));
    const about = statistic();
    byId("statistic-name").textContent = about ? [say(about.name), say(about.meaning)].filter(Boolean).join(" · ") : "";
    const notes = byId("statistic-notes");
    notes.hidden = !about || !about.notes.length;
    if (!about) return;
    notes.querySelector("summary").textContent = say({en: `About these numbers: ${say(about.of)}`, zh: `关于这些数值：${say(about.of)}`});
    notes.replaceChildren(notes.querySelector("summary"), ...about.notes.map((note) => make("p", {textContent: say(note)})));
  }
  function redraw() {
    words();
    paintGrid();
    tellGrid(state.at.layer, state.at.head);
    title();
    large.paint();
  }
  const statistics = make("span");
  function menus() {
    const listen = (menu, act) => { menu.querySelector("select").addEventListener("change", (event) => act(event.target.value)); return menu; };
    const full = (one, language) => (group.statistics.some((other) => other !== one && other.id === one.id)
      ? `${one.name[language]} · ${one.of[language]}` : one.name[language]); // two analyses may use one name
    const named = group.statistics.map((one, n) => [String(n), {en: full(one, "en"), zh: full(one, "zh")}]);
    statistics.replaceChildren();
    if (named.length) statistics.append(listen(attnviz.menu("statistic", {en: "Map of the heads by", zh: "头图按"}, named, String(state.statistic)), (value) => { state.statistic = +value; words(); paintGrid(); tellGrid(state.at.layer, state.at.head); title(); }));
    return listen;
  }
  async function show(place) {
    const before = group && statistic()?.id;
    state.group = place;
    group = await open(place);
    if (before !== null) state.statistic = Math.max(0, group.statistics.findIndex((one) => one.id === before));
    menus();
  }
  async function start() {
    await show(state.group);
    const listen = menus();
    const options = byId("menus");
    if (groups.length > 1) {
      options.append(listen(attnviz.menu("group", {en: "Stack", zh: "栈"}, groups.map((one, n) => [String(n), one.name]), String(state.group)), async (value) => {
        await show(+value);
        Object.assign(state, {layer: 0, head: 0, at: {layer: 0, head: 0}});
        large.show(group, await enlarge(group, 0));
        redraw();
      }));
    }
    options.append(statistics,
      listen(attnviz.menu("small", {en: "Show", zh: "显示"}, [["maps", {en: "small maps and numbers", zh: "小图与数值"}], ["numbers", {en: "numbers only", zh: "仅数值"}]], "maps"), (value) => { state.small = value; paintGrid(); }),
      listen(attnviz.menu("top", {en: "Their colours up to", zh: "其颜色上限"}, [["shared", {en: "1, for all heads", zh: "1，各头相同"}], ["own", {en: "each head’s largest", zh: "各头最大值"}]], "shared"), (value) => { state.top = value; paintGrid(); }));
    byId("zooms").append(listen(attnviz.menu("large-top", {en: "Colours up to", zh: "颜色上限"}, [["own", {en: "this head’s largest", zh: "该头最大值"}], ["shared", {en: "1", zh: "1"}]], "own"), (value) => large.endAt(value)));
    large.show(group, await enlarge(group, number()));
    redraw();
    attnviz.onChange(redraw);
    attnviz.onResize(redraw);
    attnviz.ready();
  }
  await start();
})().catch(attnviz.fail);
