"use strict";
// The enlarged head: all its weights on a canvas, with tokens, zoom, a cell that is pointed at, and a lens around it.
attnviz.enlargedHead = () => {
  const {bound} = attnviz.data;
  const {say, make} = attnviz;
  const {byId, clamp, fitted, font, format, put, shade, token} = attnviz.heads;
  const [map, lens, grid] = ["map", "lens", "grid"].map(byId);
  const LABELS = 92; // pixels for tokens beside a map, at most
  const LENS = {cells: 15, size: 26};
  const state = {top: "own", cell: {query: 0, key: 0}, zoom: 1, origin: {query: 0, key: 0}};
  let group = null; // whose head it is: the tokens
  let chosen = null; // its levels (0…255, the square root), key by key
  let box = null; // where its cells are, in pixels

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
  const topOf = () => (state.top === "own" ? chosen.most || 1 : 255);
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
    const context = attnviz.sized(map, labels.left + width + 2, labels.top + height + 2);
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
    const context = attnviz.sized(lens, place.left + place.width + 2, place.top + place.height + 2);
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
        context.fillStyle = attnviz.lettersOn(colour);
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

  return {
    /** Another head of the same tokens keeps the cell and the zoom. */
    show(ofGroup, head) {
      if (group !== ofGroup) Object.assign(state, {zoom: 1, origin: {query: 0, key: 0}, cell: {query: 0, key: 0}});
      [group, chosen] = [ofGroup, head];
      paintMap();
    },
    paint: paintMap,
    endAt(top) { state.top = top; paintMap(); },
  };
};
