"use strict";
// A figure of matrices: what stands under the pointer, or where the arrow keys have gone, is said beneath it.
(async () => {
  const {shape: [down, across, rows, columns], titles, ends, labels, boxes, values: bytes} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const figure = byId("figure");
  const values = bytes === null ? null : new Float32Array(await attnviz.unpack(bytes));
  let at = null; // panel, row, column

  const named = (end, i) => `${ends[end]} ${labels[end] === null ? i : `${labels[end][i]} (${i})`}`.trim();
  function words() {
    figure.setAttribute("aria-label", attnviz.say({
      en: `${down * across} heat maps of ${rows} by ${columns} cells; arrow keys move, Page Up and Page Down change the map`,
      zh: `${down * across} 个 ${rows} × ${columns} 格的热力图；方向键移动，Page Up 与 Page Down 换图`}));
    point(at);
  }
  function point(place) {
    at = place;
    byId("cursor").hidden = at === null;
    if (at === null) {
      byId("readout").textContent = values === null ? "" : attnviz.say({
        en: "Hover a cell, or use the arrow keys, for its number.", zh: "悬停某格或用方向键查看数值。"});
      return;
    }
    const [panel, row, column] = at;
    const [left, top, width, height] = boxes[panel];
    const part = (share) => `${100 * share}%`;
    Object.assign(byId("cursor").style, {
      left: part(left + (column / columns) * width), top: part(top + (row / rows) * height),
      width: part(width / columns), height: part(height / rows),
    });
    const title = titles[Math.floor(panel / across)][panel % across] || (down * across > 1 ? `${panel + 1}/${down * across}` : "");
    const number = values[(panel * rows + row) * columns + column];
    byId("readout").textContent = [title, named(0, row), named(1, column), attnviz.format(number)].filter(Boolean).join(" · ");
  }
  function under(event) {
    const box = figure.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const panel = boxes.findIndex(([left, top, width, height]) => x >= left && x < left + width && y >= top && y < top + height);
    if (panel < 0) return null;
    const [left, top, width, height] = boxes[panel];
    return [panel, Math.min(rows - 1, Math.floor(((y - top) / height) * rows)), Math.min(columns - 1, Math.floor(((x - left) / width) * columns))];
  }
  if (values !== null) {
    figure.addEventListener("mousemove", (event) => point(under(event)));
    figure.addEventListener("mouseleave", () => { if (document.activeElement !== figure) point(null); });
    figure.addEventListener("focus", () => { if (at === null) point([0, 0, 0]); });
    figure.addEventListener("blur", () => point(null));
    figure.addEventListener("keydown", (event) => {
      const step = {ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1],
        PageUp: [-1, 0, 0], PageDown: [1, 0, 0]}[event.key];
      if (!step || at === null) return;
      event.preventDefault();
      const sizes = [down * across, rows, columns];
      point(at.map((place, i) => Math.min(sizes[i] - 1, Math.max(0, place + step[i]))));
    });
  }
  words();
  attnviz.onChange(words);
  attnviz.ready();
})().catch(attnviz.fail);
