"use strict";
// Every head as a small coarse map over its number by a statistic; the chosen head whole, with zoom and a lens. Only the
// chosen head is unpacked.
(async () => {
  const {groups, exact, bound, within, stretch, shades, undefined: none} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const {say, make} = attnviz;
  const [grid, map, lens] = ["grid", "map", "lens"].map(byId);
  const LABELS = 92; // pixels for tokens beside a map, at most
  const LENS = {cells: 15, size: 26};
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const format = (value) => attnviz.format(value, 3);
  const state = {
    group: attnviz.data.start.group, layer: attnviz.data.start.layer, head: 0, statistic: attnviz.data.start.statistic,
    small: "maps", top: "shared", large: "own", at: {layer: attnviz.data.start.layer, head: 0}, cell: {query: 0, key: 0}, zoom: 1, origin: {query: 0, key: 0},
  };
  let group = null; // what is drawn: labels, thumbnails, statistics as numbers
  let chosen = null; // the enlarged head: levels (0…255, the square root), key by key
  let cellOfGrid = null;
  let box = null; // where the enlarged map's cells are, in pixels

  // ---- reading
  async function open(number) {
    const one = groups[number];
    const read = async (text) => text && new Float32Array(await attnviz.unpack(text));
    const statistics = await Promise.all(one.statistics.map(async (s) => ({...s, values: await read(s.values), even: await read(s.even)})));
    return {...one, keys: one.keys || one.queries, statistics, thumbs: new Uint8Array(await attnviz.unpack(one.thumbs))};
  }
  /** A half-precision number. */
  function half(bits) {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return NaN;
    return exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  }
  /** Levels, whether each weight has a number of its own, which rows are undefined, and each weight. */
  async function enlarge(one, number) {
    const bytes = new Uint8Array(await attnviz.unpack(one.weights[number]));
    const [rows, keys] = [one.queries.length, one.keys.length];
    const levels = new Uint8Array(rows * keys);
    const undefinedRows = new Uint8Array(rows);
    let most = 0;
    if (exact) {
      for (let i = 0; i < levels.length; i++) {
        const value = half((bytes[i] << 8) | bytes[levels.length + i]);
        if (Number.isNaN(value)) undefinedRows[i % rows] = 1;
        else levels[i] = Math.round(Math.sqrt(value) * 255);
        if (levels[i] > most) most = levels[i];
      }
      const value = (query, key) => half((bytes[key * rows + query] << 8) | bytes[levels.length + key * rows + query]);
      return {levels, most, undefinedRows, value, own: () => true};
    }
    const spans = new Uint16Array(bytes.buffer, 0, 2 * rows);
    for (let i = 1; i < rows; i++) {
      spans[i] += spans[i - 1];
      spans[rows + i] += spans[rows + i - 1];
    }
    const means = 4 * rows;
    const stored = means + rows * Math.ceil(keys / stretch);
    let place = stored + Math.ceil(levels.length / 8);
    for (let key = 0, i = 0; key < keys; key++) {
      const mean = means + Math.floor(key / stretch) * rows;
      for (let query = 0; query < rows; query++, i++) {
        if (bytes[stored + (i >> 3)] & (128 >> (i & 7))) levels[i] = bytes[place++];
        else if (key >= spans[query] && key < spans[rows + query]) levels[i] = bytes[mean + query];
        if (levels[i] > most) most = levels[i];
      }
    }
    for (let query = 0; query < rows; query++) undefinedRows[query] = spans[query] === 65535 ? 1 : 0;
    const own = (query, key) => Boolean(bytes[stored + ((key * rows + query) >> 3)] & (128 >> ((key * rows + query) & 7)))
      || key < spans[query] || key >= spans[rows + query];
    return {levels, most, undefinedRows, own, value: (query, key) => (undefinedRows[query] ? NaN : (levels[key * rows + query] / 255) ** 2)};
  }
  const number = () => state.layer * group.heads + state.head;
  const headName = (layer, head) => `L${group.layers[layer]}H${head}`;
  const statistic = () => group.statistics[state.statistic];
  /** A token and its place. */
  const token = (texts, place) => (texts[place] === String(place) ? texts[place] : `${texts[place]} (${place})`);
  const stretchOf = (texts, first, size) => (size === 1 ? token(texts, first)
    : `${token(texts, first)} … ${token(texts, Math.min(first + size, texts.length) - 1)}`);

  // ---- colours
  const shade = (level, most) => clamp(Math.round((level / (most || 1)) * 255), 0, 255);
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
  function strip(id, ramp) {
    const image = new ImageData(256, 1);
    ramp.forEach((colour, i) => { image.data.set([...colour, 255], i * 4); });
    byId(id).getContext("2d").putImageData(image, 0, 0);
  }
  function sized(canvas, width, height) {
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }
  const put = (element, left, top, width, height) => Object.assign(element.style,
    {left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`});
  const font = (size, weight = 400) => `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  function fitted(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    const characters = Array.from(text);
    while (characters.length > 1 && context.measureText(`${characters.join("")}…`).width > room) characters.pop();
    return `${characters.join("")}…`;
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
    const context = sized(grid, left + width * group.heads + 2, top + height * group.layers.length + 2);
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
      const colour = Number.isFinite(value) ? ramp[clamp(Math.round(((value - low) / (end - low)) * 255), 0, 255)] : null;
      context.fillStyle = colour ? `rgb(${colour})` : hatching;
      context.fillRect(x, y + (maps ? side + 1 : 0), side, high);
      if (side < 30 || high < 12) continue;
      context.fillStyle = !colour ? attnviz.color("text") : 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 ? "#10151b" : "#ffffff";
      context.font = font(10);
      context.textAlign = "center";
      context.fillText(Number.isFinite(value) ? attnviz.format(value, 2) : "–", x + side / 2, y + (maps ? side + 1 : 0) + high / 2 + 0.5);
    }
    if (statistic()) {
      strip("statistic-colours", ramp);
      byId("statistic-low").textContent = format(low);
      byId("statistic-high").textContent = format(end);
    }
    for (const id of ["weight-colours", "large-colours"]) strip(id, attnviz.ramp("sequential"));
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

  // ---- the enlarged head
  const counts = () => ({query: group.queries.length, key: group.keys.length});
  /** The rows and keys that are in sight. */
  function sight() {
    const all = counts();
    const across = (side) => clamp(Math.round(all[side] * state.zoom), Math.min(8, all[side]), all[side]);
    const [rows, keys] = [across("query"), across("key")];
    state.origin.query = clamp(Math.round(state.origin.query), 0, all.query - rows);
    state.origin.key = clamp(Math.round(state.origin.key), 0, all.key - keys);
    return {query: state.origin.query, key: state.origin.key, rows, keys};
  }
  /** The level at which the enlarged head's colours end. */
  const topOf = () => (state.large === "own" ? chosen.most || 1 : 255);
  /** Pixels for the tokens beside rows and above keys, so that the longest has room or is cut. */
  function beside() {
    const context = map.getContext("2d");
    context.font = font(11.5);
    const longest = (texts) => Math.min(LABELS, Math.max(...texts.map((text) => context.measureText(text).width)) + 12);
    return {left: longest(group.queries), top: longest(group.keys)};
  }
  /** An image of a window, at most so many pixels; where weights share a pixel, the largest. */
  function picture(window, width, height) {
    const [across, down] = [Math.min(window.keys, Math.max(1, width)), Math.min(window.rows, Math.max(1, height))];
    const canvas = make("canvas");
    [canvas.width, canvas.height] = [across, down];
    const image = new ImageData(across, down);
    const pixels = new Uint32Array(image.data.buffer);
    const words = new Uint32Array(new Uint8Array(attnviz.ramp("sequential").flatMap((colour) => [...colour, 255])).buffer);
    const rows = group.queries.length;
    const most = topOf();
    for (let x = 0; x < across; x++) {
      const [k0, k1] = [Math.floor((x * window.keys) / across), Math.ceil(((x + 1) * window.keys) / across)];
      for (let y = 0; y < down; y++) {
        const [q0, q1] = [Math.floor((y * window.rows) / down), Math.ceil(((y + 1) * window.rows) / down)];
        let level = 0;
        let undefinedRow = 1;
        for (let q = q0; q < q1; q++) {
          if (chosen.undefinedRows[window.query + q]) continue;
          undefinedRow = 0;
          for (let k = k0; k < k1; k++) {
            const found = chosen.levels[(window.key + k) * rows + window.query + q];
            if (found > level) level = found;
          }
        }
        pixels[y * across + x] = undefinedRow ? 0 : words[shade(level, most)];
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
  /** Cells of a window with tokens beside them. */
  function paintCells(context, window, place) {
    const {left, top, width, height} = place;
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [width / window.keys, height / window.rows];
    context.fillStyle = attnviz.hatching(context, 1);
    context.fillRect(left, top, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture(window, Math.round(width * ratio), Math.round(height * ratio)), left, top, width, height);
    context.strokeStyle = attnviz.color("line");
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
    context.fillStyle = attnviz.color("text");
    context.font = font(11.5);
    context.textBaseline = "middle";
    const every = (size) => Math.max(1, Math.ceil(14 / size));
    context.textAlign = "right";
    for (let row = 0; row < window.rows; row += every(high)) {
      context.fillText(fitted(context, group.queries[window.query + row], left - 8), left - 6, top + (row + 0.5) * high);
    }
    const seen = group.keys.slice(window.key, window.key + window.keys);
    const upright = seen.every((text) => context.measureText(text).width <= wide - 2);
    for (let column = 0; column < window.keys; column += every(wide)) {
      const text = seen[column];
      context.save();
      context.translate(left + (column + 0.5) * wide, top - 6);
      if (!upright) context.rotate(-Math.PI / 2);
      context.textAlign = upright ? "center" : "left";
      context.fillText(fitted(context, text, upright ? wide : top - 8), 0, upright ? -3 : 0);
      context.restore();
    }
    return {...window, left, top, wide, high};
  }
  function paintMap() {
    const window = sight();
    const all = counts();
    const labels = beside();
    const room = Math.max(160, byId("large").clientWidth - labels.left - 4);
    const square = all.query / all.key < 3 && all.key / all.query < 3;
    const one = Math.min(44, room / all.key, 560 / all.query);
    const [width, height] = square ? [one * all.key, one * all.query] : [Math.min(44 * all.key, room), Math.min(44 * all.query, 560)];
    const context = sized(map, labels.left + width + 2, labels.top + height + 2);
    box = paintCells(context, window, {...labels, width, height});
    byId("large-high").textContent = format((topOf() / 255) ** 2);
    byId("large-middle").textContent = format((topOf() / 255) ** 2 / 4);
    byId("window").textContent = state.zoom < 1 ? say({
      en: `queries ${window.query}–${window.query + window.rows - 1}, keys ${window.key}–${window.key + window.keys - 1}`,
      zh: `查询 ${window.query}–${window.query + window.rows - 1}，键 ${window.key}–${window.key + window.keys - 1}`}) : "";
    byId("zoom-out").disabled = byId("zoom-all").disabled = state.zoom >= 1;
    byId("zoom-in").disabled = window.rows <= Math.min(8, all.query) && window.keys <= Math.min(8, all.key);
    point();
  }
  function paintLens() {
    const all = counts();
    const labels = beside();
    const around = (side) => {
      const count = Math.min(LENS.cells, all[side], Math.max(5, Math.floor((byId("large").clientWidth - labels.left - 4) / LENS.size)));
      return [clamp(state.cell[side] - Math.floor(count / 2), 0, all[side] - count), count];
    };
    const [[query, rows], [key, keys]] = [around("query"), around("key")];
    const place = {...labels, width: keys * LENS.size, height: rows * LENS.size};
    const context = sized(lens, place.left + place.width + 2, place.top + place.height + 2);
    const {left, top, wide, high} = paintCells(context, {query, key, rows, keys}, place);
    const ramp = attnviz.ramp("sequential");
    context.font = font(10.5);
    context.textAlign = "center";
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < keys; column++) {
        const value = chosen.value(query + row, key + column);
        if (!(value >= 0.005) || !chosen.own(query + row, key + column)) continue;
        const level = chosen.levels[(key + column) * group.queries.length + query + row];
        const colour = ramp[shade(level, topOf())];
        context.fillStyle = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 ? "#10151b" : "#ffffff";
        context.fillText(String(Math.round(value * 100)), left + (column + 0.5) * wide, top + (row + 0.5) * high);
      }
    }
    context.strokeStyle = attnviz.color("accent");
    context.lineWidth = 2;
    context.strokeRect(left + (state.cell.key - key) * wide, top + (state.cell.query - query) * high, wide, high);
  }
  /** The number of a cell in words. */
  function spoken(query, key) {
    const value = chosen.value(query, key);
    if (!Number.isFinite(value)) return say({en: "undefined: the whole row is masked", zh: "未定义：整行被遮蔽"});
    if (chosen.own(query, key) || !bound) return say({en: `weight ${format(value)}`, zh: `权重 ${format(value)}`});
    return say({en: `weight ≈ ${format(value)} (mean of its neighbours, within ${bound})`, zh: `权重 ≈ ${format(value)}（邻近权重的平均，误差不超过 ${bound}）`});
  }
  function point() {
    const {query, key} = state.cell;
    byId("readout").textContent = [`${say({en: "query", zh: "查询"})} ${token(group.queries, query)}`,
      `${say({en: "key", zh: "键"})} ${token(group.keys, key)}`, spoken(query, key)].join(" · ");
    const {left, top, wide, high} = box;
    const seen = query >= box.query && query < box.query + box.rows && key >= box.key && key < box.key + box.keys;
    byId("map-cursor").hidden = !seen;
    const [width, height] = [Math.max(4, wide), Math.max(4, high)];
    put(byId("map-cursor"), left + (key - box.key + 0.5) * wide - width / 2, top + (query - box.query + 0.5) * high - height / 2, width, height);
    paintLens();
  }
  function underMap(event) {
    const place = map.getBoundingClientRect();
    const along = (first, count, pixels, size) => clamp(first + Math.floor(pixels / size), first, first + count - 1);
    return {query: along(box.query, box.rows, event.clientY - place.top - box.top, box.high), key: along(box.key, box.keys, event.clientX - place.left - box.left, box.wide)};
  }
  /** Zoom by a factor; the cell stays where it is. */
  function zoom(factor, {query, key} = state.cell) {
    const before = sight();
    const least = Math.min(1, 8 / Math.max(...Object.values(counts())));
    state.zoom = clamp(state.zoom * factor, least, 1);
    const probe = {...state.origin};
    state.origin = {query: 0, key: 0};
    const after = sight();
    state.origin = {query: query - (query - probe.query) * (after.rows / before.rows), key: key - (key - probe.key) * (after.keys / before.keys)};
    paintMap();
  }
  /** The cell, in sight. */
  function walk(query, key) {
    const all = counts();
    state.cell = {query: clamp(query, 0, all.query - 1), key: clamp(key, 0, all.key - 1)};
    const window = sight();
    const into = (place, first, count) => (place < first ? place : place >= first + count ? place - count + 1 : first);
    const origin = {query: into(state.cell.query, window.query, window.rows), key: into(state.cell.key, window.key, window.keys)};
    const moved = origin.query !== state.origin.query || origin.key !== state.origin.key;
    state.origin = origin;
    if (moved) paintMap(); else point();
  }
  let drag = null;
  map.addEventListener("pointerdown", (event) => {
    drag = state.zoom < 1 ? {x: event.clientX, y: event.clientY, origin: {...state.origin}} : null;
    if (drag) map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => {
    if (drag && event.buttons) {
      state.origin = {query: drag.origin.query - (event.clientY - drag.y) / box.high, key: drag.origin.key - (event.clientX - drag.x) / box.wide};
      paintMap();
      return;
    }
    const found = underMap(event);
    if (found.query === state.cell.query && found.key === state.cell.key) return;
    state.cell = found;
    point();
  });
  addEventListener("pointerup", () => { drag = null; });
  map.addEventListener("dblclick", (event) => zoom(0.5, underMap(event)));
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== map) return; // else the page scrolls
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, underMap(event));
  }, {passive: false});
  map.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const step = {ArrowUp: [-far, 0], ArrowDown: [far, 0], ArrowLeft: [0, -far], ArrowRight: [0, far], Home: [0, -1e9], End: [0, 1e9], PageUp: [-1e9, 0], PageDown: [1e9, 0]}[event.key];
    if (step) walk(state.cell.query + step[0], state.cell.key + step[1]);
    else if (event.key === "+" || event.key === "=") zoom(0.7);
    else if (event.key === "-") zoom(1 / 0.7);
    else if (event.key === "0") zoom(1e9);
    else if (event.key === "Escape") grid.focus();
    else return;
    event.preventDefault();
  });
  byId("zoom-in").addEventListener("click", () => zoom(0.6));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
  byId("zoom-all").addEventListener("click", () => zoom(1e9));

  // ---- choosing
  let asked = 0;
  async function choose(layer, head) {
    const mine = ++asked;
    const found = await enlarge(group, layer * group.heads + head);
    if (mine !== asked) return; // another one was chosen meanwhile
    chosen = found;
    Object.assign(state, {layer, head, at: {layer, head}});
    marks();
    tellGrid(layer, head);
    title();
    paintMap();
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
    paintMap();
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
    Object.assign(state, {zoom: 1, origin: {query: 0, key: 0}, cell: {query: 0, key: 0}});
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
        chosen = await enlarge(group, 0);
        redraw();
      }));
    }
    options.append(statistics,
      listen(attnviz.menu("small", {en: "Show", zh: "显示"}, [["maps", {en: "small maps and numbers", zh: "小图与数值"}], ["numbers", {en: "numbers only", zh: "仅数值"}]], "maps"), (value) => { state.small = value; paintGrid(); }),
      listen(attnviz.menu("top", {en: "Their colours up to", zh: "其颜色上限"}, [["shared", {en: "1, for all heads", zh: "1，各头相同"}], ["own", {en: "each head’s largest", zh: "各头最大值"}]], "shared"), (value) => { state.top = value; paintGrid(); }));
    byId("zooms").append(listen(attnviz.menu("large-top", {en: "Colours up to", zh: "颜色上限"}, [["own", {en: "this head’s largest", zh: "该头最大值"}], ["shared", {en: "1", zh: "1"}]], "own"), (value) => { state.large = value; paintMap(); }));
    state.cell = {query: 0, key: 0};
    chosen = await enlarge(group, number());
    redraw();
    attnviz.onChange(redraw);
    let waiting = 0;
    let lastWidth = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === lastWidth) return;
      lastWidth = innerWidth;
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(redraw);
    });
    attnviz.ready();
  }
  await start();
})().catch(attnviz.fail);
