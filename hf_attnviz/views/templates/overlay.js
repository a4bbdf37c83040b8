"use strict";
// Numbers laid over pictures: one canvas a picture, its cells coloured by the row that is chosen.
(async () => {
  const {menus, sheets, pictures, sums} = attnviz.data;
  const byId = (id) => document.getElementById(id);
  const say = attnviz.say;
  const WIDEST = 620;
  const UNDEFINED = 65535;
  let sheet = null;
  let number = attnviz.data.start;
  let leaf = 0;
  let choice = 0; // a place in the averages followed by the queries
  let canvases = [];
  let at = null; // [part, row, column]
  let weights = null; // of each key, for what is chosen
  let high = 1;

  const images = await Promise.all(pictures.map(async ({source}) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  }));

  async function opened(told) {
    if (told.ready) return told;
    const bytes = await attnviz.unpack(told.values);
    told.ready = {
      values: told.exact ? new Uint16Array(bytes) : new Uint8Array(bytes),
      means: new Float32Array(await attnviz.unpack(told.means)),
      shares: new Uint16Array(await attnviz.unpack(told.shares)),
      cells: new Int16Array(await attnviz.unpack(told.cells)),
    };
    told.keyOf = told.parts.map(({grid}) => new Int32Array(grid[0] * grid[1]).fill(-1));
    for (let key = 0; key < told.keys; key++) {
      const [part, row, column] = told.ready.cells.subarray(key * 3, key * 3 + 3);
      told.keyOf[part][row * told.parts[part].grid[1] + column] = key;
    }
    told.rowOf = new Map(told.queries.flatMap(({cell}, i) => (cell ? [[cell.join(), i]] : [])));
    return told;
  }

  /** What the chosen row, or average, gives to each key; null where that is undefined. */
  function chosenWeights() {
    const {averages, keys, queries} = sheet;
    if (choice < averages.length) {
      const from = (leaf * averages.length + choice) * keys;
      return sheet.ready.means.subarray(from, from + keys);
    }
    const row = leaf * queries.length + choice - averages.length;
    if (sheet.ready.shares[row] === UNDEFINED) return null;
    const codes = sheet.ready.values.subarray(row * keys, (row + 1) * keys);
    return Float32Array.from(codes, (code) => attnviz.weight(code, sheet.exact));
  }
  const weightAt = ([part, row, column]) => {
    const key = sheet.keyOf[part][row * sheet.parts[part].grid[1] + column];
    return key < 0 ? null : weights ? weights[key] : NaN;
  };
  const nameOf = (place) => say(place < sheet.averages.length ? sheet.averages[place] : sheet.queries[place - sheet.averages.length].text);

  // ---- drawing

  function sizeOf(part) {
    const picture = part.picture === null ? null : pictures[part.picture];
    const [width, height] = picture ? [picture.width, picture.height] : [part.grid[1], part.grid[0]];
    const side = innerWidth > 760 ? document.querySelector(".layout").clientWidth - 320 : document.querySelector(".layout").clientWidth;
    const several = sheet.parts.length > 1 ? Math.min(300, WIDEST) : WIDEST;
    const scale = Math.min(Math.max(160, Math.min(side - 8, several)) / width, (several === WIDEST ? 560 : 300) / height);
    const box = part.box || [0, 0, width, height];
    return {width: width * scale, height: height * scale, box: box.map((one) => one * scale)};
  }
  /** Left, top, width and height of a cell in the pixels of the page. */
  function rectangle(size, grid, row, column) {
    const [left, top, right, bottom] = size.box;
    const [width, height] = [(right - left) / grid[1], (bottom - top) / grid[0]];
    return [left + column * width, top + row * height, width, height];
  }
  function build() {
    canvases = sheet.parts.map((part, index) => {
      const canvas = attnviz.make("canvas", {tabindex: "0", role: "application"});
      listen(canvas, index);
      const caption = attnviz.make("figcaption");
      byId("parts").append(attnviz.make("figure", {}, canvas, ...(part.name ? [caption] : [])));
      return {canvas, caption, part, size: null};
    });
  }
  function layout() {
    byId("parts").replaceChildren();
    build();
  }
  function paint() {
    weights = chosenWeights();
    high = 0;
    let best = -1;
    if (weights) weights.forEach((value, key) => { if (value > high) [high, best] = [value, key]; });
    high = high || 1;
    const ramp = attnviz.ramp("sequential");
    const strongest = best < 0 ? null : [...sheet.ready.cells.subarray(best * 3, best * 3 + 3)];
    canvases.forEach((one, index) => paintPart(one, index, ramp, strongest));
    attnviz.paintBar("bar-colours", ramp);
    byId("bar-middle").textContent = attnviz.format(high / 2, 2);
    byId("bar-high").textContent = `${attnviz.format(high, 2)} ${say({en: "weight", zh: "权重"})}`;
    tellShare(strongest);
    point(at);
  }
  function paintPart(one, index, ramp, strongest) {
    const {canvas, part} = one;
    const size = one.size = sizeOf(part);
    const context = attnviz.sized(canvas, size.width, size.height);
    canvas.setAttribute("aria-label", say({
      en: `Picture of ${part.grid[0]} rows and ${part.grid[1]} columns of patches; arrow keys move, Enter chooses`,
      zh: `图像，${part.grid[0]} 行 ${part.grid[1]} 列图块；方向键移动，回车选择`}));
    one.caption.textContent = part.name ? say(part.name) : "";
    const [left, top, right, bottom] = size.box;
    const image = part.picture === null ? null : images[part.picture];
    if (image) {
      context.drawImage(image, 0, 0, size.width, size.height);
      context.save();
      if (byId("grey").checked) { // so that hue is the weight's alone
        context.globalCompositeOperation = "color";
        context.fillStyle = "#808080";
        context.fillRect(0, 0, size.width, size.height);
        context.globalCompositeOperation = "source-over";
      }
      context.beginPath();
      context.rect(0, 0, size.width, size.height);
      context.rect(left, top, right - left, bottom - top);
      context.fillStyle = attnviz.color("background");
      context.globalAlpha = 0.65;
      context.fill("evenodd");
      context.restore();
    }
    const opacity = image ? byId("opacity").value / 100 : 1;
    paintCells(context, size, part, index, ramp, opacity);
    if (byId("lines").checked) paintLines(context, size, part);
    if (strongest && strongest[0] === index) ring(context, rectangle(size, part.grid, strongest[1], strongest[2]));
    const query = choice < sheet.averages.length ? null : sheet.queries[choice - sheet.averages.length].cell;
    if (query && query[0] === index) frame(context, rectangle(size, part.grid, query[1], query[2]), [4, 3]);
    if (at && at[0] === index) frame(context, rectangle(size, part.grid, at[1], at[2]), []);
  }
  function paintCells(context, size, part, index, ramp, opacity) {
    const [rows, columns] = part.grid;
    const [left, top, right, bottom] = size.box;
    const hollow = [];
    const small = attnviz.cells(columns, rows, (row, column) => {
      const value = weightAt([index, row, column]);
      if (Number.isFinite(value)) return attnviz.colourAt(ramp, value / high);
      if (value !== null) hollow.push([row, column]);
      return null;
    });
    context.save();
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(small, left, top, right - left, bottom - top);
    if (hollow.length) {
      context.fillStyle = attnviz.hatching(context, 1);
      for (const [row, column] of hollow) context.fillRect(...rectangle(size, part.grid, row, column));
    }
    context.restore();
  }
  function paintLines(context, size, part) {
    const [left, top, right, bottom] = size.box;
    const [rows, columns] = part.grid;
    if (Math.min((right - left) / columns, (bottom - top) / rows) < 4) return; // lines would hide the picture
    context.save();
    context.strokeStyle = "#808080";
    context.globalAlpha = 0.55;
    context.lineWidth = 1;
    context.beginPath();
    for (let c = 0; c <= columns; c++) {
      const x = left + (c * (right - left)) / columns;
      context.moveTo(x, top);
      context.lineTo(x, bottom);
    }
    for (let r = 0; r <= rows; r++) {
      const y = top + (r * (bottom - top)) / rows;
      context.moveTo(left, y);
      context.lineTo(right, y);
    }
    context.stroke();
    context.restore();
  }
  function frame(context, [x, y, width, height], dashes) {
    for (const [colour, thick] of [[attnviz.color("background"), 4.5], [attnviz.color("accent"), 2.2]]) {
      context.save();
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.setLineDash(thick > 3 ? [] : dashes);
      context.strokeRect(x, y, width, height);
      context.restore();
    }
  }
  function ring(context, [x, y, width, height]) {
    const radius = Math.max(4, Math.min(width, height) * 0.32);
    for (const [colour, thick] of [["#ffffff", 4], ["#1b1f24", 1.8]]) {
      context.save();
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.beginPath();
      context.arc(x + width / 2, y + height / 2, radius, 0, 2 * Math.PI);
      context.stroke();
      context.restore();
    }
  }

  // ---- telling

  function cellName([part, row, column]) {
    const name = sheet.parts[part].name ? `${say(sheet.parts[part].name)} ` : "";
    return name + say({en: `row ${row}, column ${column}`, zh: `第 ${row} 行第 ${column} 列`});
  }
  function number4(value) {
    if (value === null) return say({en: "no patch here", zh: "此处无图块"});
    return attnviz.format(value);
  }
  function point(cell) {
    at = cell;
    byId("readout").textContent = cell
      ? `${nameOf(choice)} · ${cellName(cell)} · ${number4(weightAt(cell))}`
      : say({en: "Hover a patch, or use the arrow keys, for its weight.", zh: "悬停图块或用方向键查看权重。"});
  }
  function tellShare(strongest) {
    const parts = [];
    if (!weights) parts.push(say({en: "This row sees nothing: its weights are undefined.", zh: "此行看不到任何键：权重未定义。"}));
    else if (strongest) parts.push(`${say({en: "Strongest", zh: "最强"})}: ${cellName(strongest)} · ${number4(weightAt(strongest))}`);
    if (!sums) { /* places of an image: their weights on a word are no shares of one */ }
    else if (weights && choice >= sheet.averages.length) {
      const share = sheet.ready.shares[leaf * sheet.queries.length + choice - sheet.averages.length] / (UNDEFINED - 1);
      parts.push(`${say({en: "on all patches", zh: "所有图块合计"})} ${share.toFixed(3)}`);
    } else if (weights) {
      const sum = weights.reduce((total, value) => total + value, 0);
      parts.push(`${say({en: "on all patches", zh: "所有图块合计"})} ${sum.toFixed(3)}`);
    }
    byId("share").textContent = parts.join(" · ");
  }

  // ---- choosing

  function under(event, index) {
    const {canvas, part, size} = canvases[index];
    const bounds = canvas.getBoundingClientRect();
    const [left, top, right, bottom] = size.box;
    const column = Math.floor(((event.clientX - bounds.left - left) / (right - left)) * part.grid[1]);
    const row = Math.floor(((event.clientY - bounds.top - top) / (bottom - top)) * part.grid[0]);
    return row >= 0 && row < part.grid[0] && column >= 0 && column < part.grid[1] ? [index, row, column] : null;
  }
  function move(cell) {
    if (String(cell) === String(at)) return;
    at = cell;
    paint();
  }
  function take(cell) {
    const row = cell && sheet.rowOf.get(cell.join());
    if (row !== undefined && row !== null) choose(row + sheet.averages.length);
  }
  function listen(canvas, index) {
    canvas.addEventListener("mousemove", (event) => move(under(event, index)));
    canvas.addEventListener("mouseleave", () => { if (document.activeElement !== canvas) move(null); });
    canvas.addEventListener("click", (event) => take(under(event, index)));
    canvas.addEventListener("focus", () => { if (!at || at[0] !== index) move([index, 0, 0]); });
    canvas.addEventListener("blur", () => move(null));
    canvas.addEventListener("keydown", (event) => {
      if (!at) return;
      const {grid} = sheet.parts[index];
      const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (step) move([index, Math.min(grid[0] - 1, Math.max(0, at[1] + step[0])), Math.min(grid[1] - 1, Math.max(0, at[2] + step[1]))]);
      else if (event.key === "Enter" || event.key === " ") take(at);
      else return;
      event.preventDefault();
    });
  }
  function choose(place, focus = false) {
    choice = place;
    for (const option of byId("queries").children) {
      const own = +option.dataset.place === place;
      option.setAttribute("aria-selected", String(own));
      option.tabIndex = own ? 0 : -1;
      if (own && focus) option.focus();
    }
    if (!byId("queries").querySelector("[tabindex='0']")) byId("queries").firstElementChild.tabIndex = 0;
    paint();
  }
  function list() {
    const rows = sheet.queries.flatMap(({cell, answered}, i) => (cell ? [] : [[i + sheet.averages.length, answered ? "answered" : ""]]));
    const listed = [ // the answer first: of a long prompt it would be out of sight
      ...sheet.averages.map((_, i) => [i, "average"]), ...rows.filter(([, kind]) => kind), ...rows.filter(([, kind]) => !kind),
    ];
    byId("queries").replaceChildren(...listed.map(([place, kind]) => {
      const option = attnviz.make("span", {role: "option", "data-place": place, className: kind}, nameOf(place));
      option.addEventListener("click", () => choose(place));
      return option;
    }));
  }
  byId("queries").addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const options = [...byId("queries").children];
    const now = options.indexOf(document.activeElement);
    const next = options[Math.min(options.length - 1, Math.max(0, now + step))];
    choose(+next.dataset.place, true);
  });

  function places() {
    const {outer, leaves} = sheet;
    const change = (menu, then) => menu.querySelector("select").addEventListener("change", (event) => then(+event.target.value));
    const own = [];
    if (outer.length > 1) {
      const first = attnviz.menu("outer", menus[1], outer.map((text, i) => [String(i), text]), String(leaves[leaf].outer));
      change(first, (which) => {
        const alike = leaves.findIndex((one) => one.outer === which && say(one.inner) === say(leaves[leaf].inner));
        leaf = alike < 0 ? leaves.findIndex((one) => one.outer === which) : alike;
        places();
        paint();
      });
      own.push(first);
    }
    const within = leaves.flatMap((one, i) => (one.outer === leaves[leaf].outer ? [[String(i), one.inner]] : []));
    if (within.length > 1) {
      const second = attnviz.menu("inner", menus[2], within, String(leaf));
      change(second, (which) => { leaf = which; paint(); });
      own.push(second);
    }
    byId("places").replaceChildren(...own);
  }
  async function show(which) {
    sheet = await opened(sheets[which]);
    number = which;
    [leaf, choice, at] = [sheet.start, sheet.chosen, null];
    layout();
    places();
    list();
    choose(choice);
  }

  if (sheets.length > 1) {
    const menu = attnviz.menu("sheet", menus[0], sheets.map(({name}, i) => [String(i), name]), String(number));
    menu.querySelector("select").addEventListener("change", (event) => { show(+event.target.value).catch(attnviz.fail); });
    byId("menus").append(menu);
  }
  const box = attnviz.make("span", {id: "places", className: "controls"});
  box.style.margin = "0";
  byId("menus").append(box);
  byId("opacity").addEventListener("input", paint);
  for (const name of ["lines", "grey"]) byId(name).addEventListener("change", paint);
  for (const control of document.querySelectorAll(".beneath")) control.hidden = !pictures.length;
  await show(number);
  attnviz.onChange(() => { list(); choose(choice); });
  attnviz.onResize(paint);
  attnviz.ready();
})().catch(attnviz.fail);
