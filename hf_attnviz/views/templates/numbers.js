"use strict";
// Numbers that a page holds, and means over layers and heads.
(() => {
  const WEIGHT = Float32Array.from({length: 256}, (_, code) => (code === 255 ? NaN : (code / 254) ** 2));
  /** What views/held.py stored, as one array of floats. */
  attnviz.numbers = async ({coded, data}) => {
    const bytes = await attnviz.unpack(data);
    if (!coded) return new Float32Array(bytes);
    const codes = new Uint8Array(bytes);
    const found = new Float32Array(codes.length);
    for (let i = 0; i < codes.length; i++) found[i] = WEIGHT[codes[i]];
    return found;
  };
  /** The places of all matrices that menus choose, of menus with so many entries each; -1 chooses all of a menu. */
  attnviz.pages = (sizes, chosen) => sizes.reduce((places, size, n) => places.flatMap((place) => (chosen[n] < 0
    ? Array.from({length: size}, (_, i) => place * size + i) : [place * size + chosen[n]])), [0]);
  /** The mean of what is defined over matrices of `size` numbers, of `count` numbers from `start` on. */
  attnviz.mean = (values, pages, size, start = 0, count = size) => {
    const total = new Float64Array(count);
    const known = new Uint32Array(count);
    for (const page of pages) {
      for (let i = 0, at = page * size + start; i < count; i++, at++) {
        if (values[at] === values[at]) { total[i] += values[at]; known[i] += 1; }
      }
    }
    return total.map((sum, i) => (known[i] ? sum / known[i] : NaN));
  };
  /** Menus for axes {id, name, labels, mean}: options are the mean over all, where that makes sense, and each label. */
  attnviz.menus = (box, axes, chosen, changed) => axes.forEach(({id, name, labels, mean}, n) => {
    if (labels.length < 2) return;
    const all = mean ? [["-1", mean]] : [];
    const made = attnviz.menu(id, name, [...all, ...labels.map((text, i) => [String(i), text])], String(chosen[n]));
    made.querySelector("select").addEventListener("change", (event) => { chosen[n] = +event.target.value; changed(); });
    box.append(made);
  });
  /** A style of the heat at a share of the scale, from 0 to 1, with letters that can be read on it. */
  attnviz.heatAt = (ramp, share) => {
    const colour = attnviz.colourAt(ramp, share);
    return {background: `rgb(${colour})`, color: attnviz.lettersOn(colour)};
  };
})();
