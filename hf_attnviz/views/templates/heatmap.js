"use strict";
// A matrix on a canvas, its labels as text around it, a readout under it.
(async () => {
  const {axes, square, unit, byRow} = attnviz.data; // byRow: each row has a unit, and colours, of its own
  const byId = (id) => document.getElementById(id);
  const canvas = byId("heat");
  const [rowAxis, columnAxis] = axes.slice(-2);
  const spoken = (axis) => axis.labels.map((label) => attnviz.say(label));
  const rows = rowAxis.labels.length;
  const columns = columnAxis.labels.length;
  const leading = axes.slice(0, -2);
  const chosen = [...attnviz.data.start];
  const values = new Float32Array(await attnviz.unpack(attnviz.data.values));
  const beside = await Promise.all(attnviz.data.beside.map(
    async (one) => ({name: one.name, values: new Float32Array(await attnviz.unpack(one.values))})));
  let matrix = values;
  let wanted = null;
  let page = 0;
  let scale = null;
  let cell = null;
  let at = null;

  function limits() {
    let low = Infinity;
    let high = -Infinity;
    let undefinedCells = false;
    for (const value of matrix) {
      if (!Number.isFinite(value)) { undefinedCells = true; continue; }
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (Array.isArray(wanted)) return {low: wanted[0], high: wanted[1], diverging: wanted[0] < 0, undefinedCells};
    if (low > high) return {low: 0, high: 1, diverging: false, undefinedCells};
    if (low < 0 || wanted === "centred") {
      const bound = byRow ? 1 : Math.max(-low, high) || 1;
      return {low: -bound, high: bound, diverging: true, undefinedCells};
    }
    if (low <= high / 2) low = 0;
    if (byRow) return {low: 0, high: 1, diverging: false, undefinedCells};
    return {low, high: high > low ? high : low + 1, diverging: false, undefinedCells};
  }

  /** The largest finite number without its sign; 1 where there is none, or nothing but zeros. */
  const largest = (row) => row.reduce((most, value) => (Number.isFinite(value) ? Math.max(most, Math.abs(value)) : most), 0) || 1;

  const widest = () => Math.min(150, Math.max(...spoken(columnAxis).map((text) => attnviz.textWidth(text))));
  /** The angle of the columns' labels in degrees, for columns of a width. */
  function angleOf(width) {
    if (spoken(columnAxis).every((text) => attnviz.textWidth(text) <= width - 4)) return 0;
    return width >= 20 ? 50 : 90;
  }
  /** How far the last label leans out over the cells. */
  const lean = (width) => (angleOf(width) === 50 ? Math.max(0, widest() * 0.65 - width / 2 + 2) : 0);

  function sizes() {
    const longest = Math.min(Math.max(...spoken(rowAxis).map((text) => attnviz.textWidth(text))), 150);
    const layout = document.querySelector(".layout").clientWidth;
    const plotRoom = Math.max(120, (innerWidth > 760 ? layout - 320 : layout) - longest - 66);
    let width = Math.min(36, plotRoom / columns);
    width = Math.min(width, (plotRoom - lean(width)) / columns);
    let height = Math.min(36, 680 / rows);
    if (square && rows / columns < 3 && columns / rows < 3) width = height = Math.min(width, height);
    height = Math.max(height, rows === 1 ? 24 : 0);
    const whole = (size) => (size >= 3 ? Math.floor(size) : size);
    return {width: whole(width), height: whole(height), longest};
  }

  function layout() {
    cell = sizes();
    const place = (box, labels, size, put) => {
      const every = Math.max(1, Math.ceil(14 / size));
      box.replaceChildren(...labels.flatMap((text, i) => {
        if (i % every) return [];
        const span = attnviz.make("span", {title: text}, attnviz.fitted(text, 150));
        span.dataset.index = i;
        put(span, (i + 0.5) * size);
        return [span];
      }));
    };
    const angle = angleOf(cell.width);
    const upright = angle === 0;
    byId("column-labels").style.height = `${upright ? 18 : widest() * Math.sin((angle * Math.PI) / 180) + 14}px`;
    byId("cells").style.marginRight = `${lean(cell.width)}px`;
    byId("row-labels").style.width = `${cell.longest + 10}px`;
    place(byId("row-labels"), spoken(rowAxis), cell.height, (span, y) => { span.style.top = `${y + 1}px`; });
    place(byId("column-labels"), spoken(columnAxis), cell.width, (span, x) => {
      if (upright) {
        span.style.left = `${x + 1}px`;
        span.style.transform = "translateX(-50%)";
      } else {
        span.style.left = `${x + (angle === 90 ? 7 : 5)}px`;
        span.style.transform = `rotate(-${angle}deg)`;
      }
    });
    words();
  }

  function words() {
    byId("column-name").textContent = attnviz.say(columnAxis.name);
    byId("row-name").textContent = attnviz.say(rowAxis.name);
    canvas.setAttribute("aria-label", attnviz.say({
      en: `Heat map of ${rows} by ${columns} cells; arrow keys move`, zh: `${rows} × ${columns} 格的热力图；用方向键移动`}));
  }

  function paint() {
    const ramp = attnviz.ramp(scale.diverging ? "diverging" : "sequential");
    const whole = Array.from({length: rows}, (_, r) => (byRow ? largest(matrix.subarray(r * columns, (r + 1) * columns)) : 1));
    const hollow = [];
    const small = attnviz.cells(columns, rows, (row, column) => {
      const value = matrix[row * columns + column];
      if (Number.isFinite(value)) return attnviz.colourAt(ramp, (value / whole[row] - scale.low) / (scale.high - scale.low));
      hollow.push(row * columns + column);
      return null;
    });
    const [width, height] = [cell.width * columns, cell.height * rows];
    const context = attnviz.sized(canvas, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, width, height);
    if (hollow.length) {
      context.fillStyle = attnviz.hatching(context, devicePixelRatio || 1);
      context.beginPath();
      for (const i of hollow) {
        context.rect((i % columns) * cell.width, Math.floor(i / columns) * cell.height, cell.width, cell.height);
      }
      context.fill();
    }
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-low").textContent = attnviz.format(scale.low);
    byId("bar-middle").textContent = attnviz.format((scale.low + scale.high) / 2);
    const top = byRow ? attnviz.say({en: "of the row's largest", zh: "× 该行最大值"}) : attnviz.say(unit);
    byId("bar-high").textContent = `${attnviz.format(scale.high)} ${top}`.trim();
    byId("bar-undefined").hidden = !scale.undefinedCells;
  }

  function named(axis, i) {
    const text = attnviz.say(axis.labels[i]);
    return `${attnviz.say(axis.name)} ${text}${text === String(i) ? "" : ` (${i})`}`;
  }
  function point(row, column) {
    at = row === null ? null : [row, column];
    document.querySelectorAll(".labels .current").forEach((span) => span.classList.remove("current"));
    const cursor = byId("cursor");
    cursor.hidden = at === null;
    if (at === null) {
      byId("readout").textContent = attnviz.say({en: "Hover a cell, or use the arrow keys, for its number.", zh: "悬停某格或用方向键查看数值。"});
      return;
    }
    const [width, height] = [Math.max(cell.width, 3), Math.max(cell.height, 3)];
    Object.assign(cursor.style, {left: `${column * cell.width}px`, top: `${row * cell.height}px`, width: `${width}px`, height: `${height}px`});
    document.querySelector(`#row-labels [data-index="${row}"]`)?.classList.add("current");
    document.querySelector(`#column-labels [data-index="${column}"]`)?.classList.add("current");
    const value = matrix[row * columns + column];
    const number = Number.isFinite(value) ? `${attnviz.format(value)} ${attnviz.say(unit)}`.trim() : attnviz.format(value);
    const others = beside.map((one) => `${attnviz.say(one.name)} ${attnviz.format(one.values[page * rows * columns + row * columns + column])}`);
    byId("readout").textContent = [named(rowAxis, row), named(columnAxis, column), number, ...others].join(" · ");
  }
  attnviz.pointing(canvas, {
    at: () => at, first: () => [0, 0], sizes: () => [rows, columns], point: (place) => point(...(place || [null])),
    under: (event) => attnviz.cellUnder(event, cell, [rows, columns]),
  });

  function draw() {
    page = leading.reduce((place, axis, i) => place * axis.labels.length + chosen[i], 0);
    matrix = values.subarray(page * rows * columns, (page + 1) * rows * columns);
    wanted = attnviz.data.scales[page];
    scale = limits();
    paint();
    point(...(at || [null]));
  }
  leading.forEach((axis, i) => {
    const menu = attnviz.menu(`axis-${i}`, axis.name, axis.labels.map((text, j) => [String(j), text]), String(chosen[i]));
    menu.querySelector("select").addEventListener("change", (event) => { chosen[i] = +event.target.value; draw(); });
    byId("menus").append(menu);
  });
  layout();
  draw();
  const again = () => { layout(); draw(); };
  attnviz.onChange(again); // names of rows and columns have a language, too, and a width in it
  attnviz.onResize(again);
  attnviz.ready();
})().catch(attnviz.fail);
