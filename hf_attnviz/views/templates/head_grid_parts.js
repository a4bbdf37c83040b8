"use strict";
// What the small maps and the enlarged head share: a head read from its bytes, and canvases.
attnviz.heads = (() => {
  const {exact, stretch} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const format = (value) => attnviz.format(value, 3);
  /** A token and its place. */
  const token = (texts, place) => (texts[place] === String(place) ? texts[place] : `${texts[place]} (${place})`);
  const shade = (level, most) => clamp(Math.round((level / (most || 1)) * 255), 0, 255);
  /** Levels, whether each weight has a number of its own, which rows are undefined, and each weight. */
  async function enlarge(one, number) {
    const bytes = new Uint8Array(await attnviz.unpack(one.weights[number]));
    const [rows, keys] = [one.queries.length, one.keys.length];
    const levels = new Uint8Array(rows * keys);
    const undefinedRows = new Uint8Array(rows);
    let most = 0;
    if (exact) {
      for (let i = 0; i < levels.length; i++) {
        const value = attnviz.half((bytes[i] << 8) | bytes[levels.length + i]);
        if (Number.isNaN(value)) undefinedRows[i % rows] = 1;
        else levels[i] = Math.round(Math.sqrt(value) * 255);
        if (levels[i] > most) most = levels[i];
      }
      const value = (query, key) => attnviz.half((bytes[key * rows + query] << 8) | bytes[levels.length + key * rows + query]);
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
  const put = (element, left, top, width, height) => Object.assign(element.style,
    {left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`});
  const font = (size, weight = 400) => `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  const fitted = (context, text, room) => attnviz.fitted(text, room, (part) => context.measureText(part).width);
  return {byId, clamp, enlarge, fitted, font, format, put, shade, token};
})();
