"use strict";
// What pictures share: colours, canvases, text cut to its room, and cells that are pointed at. Colours are ColorBrewer's GnBu and RdBu, which the colour-blind can tell apart; in the
// dark the same hues run from dark to light.
(() => {
  const RAMPS = {
    light: {
      sequential: ["#f7fcf0", "#e0f3db", "#ccebc5", "#a8ddb5", "#7bccc4", "#4eb3d3", "#2b8cbe", "#0868ac", "#084081"],
      diverging: ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"],
    },
    dark: {
      sequential: ["#1c2530", "#123a5e", "#0868ac", "#2b8cbe", "#4eb3d3", "#7bccc4", "#a8ddb5", "#ccebc5", "#f7fcf0"],
      diverging: ["#9fd0ff", "#5aa6ea", "#2f73b5", "#24486f", "#222d3b", "#20242a", "#43302b", "#7d4436", "#bf6046", "#f08a62", "#ffc2a1"],
    },
  };
  /** 256 colours [red, green, blue] of the chosen theme: "sequential" or "diverging". */
  attnviz.ramp = (kind) => {
    const stops = RAMPS[attnviz.theme][kind];
    const numbers = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
    return Array.from({length: 256}, (_, i) => {
      const place = (i / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      return numbers[low].map((from, c) => Math.round(from + (numbers[low + 1][c] - from) * (place - low)));
    });
  };
  /** The colour at a share of a scale, from 0 to 1. */
  attnviz.colourAt = (ramp, share) => ramp[Math.min(255, Math.max(0, Math.round(share * 255)))];
  /** The colour of letters that can be read on a colour. */
  attnviz.lettersOn = ([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#10151b" : "#ffffff");
  /** 256 colours side by side on the canvas of a colour bar. */
  attnviz.paintBar = (id, ramp) => {
    const strip = new ImageData(256, 1);
    ramp.forEach((colour, i) => { strip.data.set([...colour, 255], i * 4); });
    document.getElementById(id).getContext("2d").putImageData(strip, 0, 0);
  };
  /** A canvas of a pixel a cell: `colour(row, column)` gives [red, green, blue], or null for nothing. */
  attnviz.cells = (columns, rows, colour) => {
    const canvas = Object.assign(document.createElement("canvas"), {width: columns, height: rows});
    const image = new ImageData(columns, rows);
    for (let i = 0; i < columns * rows; i++) {
      const found = colour(Math.floor(i / columns), i % columns);
      if (!found) continue;
      image.data.set(found, i * 4);
      image.data[i * 4 + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  /** The context of a canvas made so large, in pixels of the page whatever the screen has. */
  attnviz.sized = (canvas, width, height) => {
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  };
  const measure = document.createElement("canvas").getContext("2d");
  /** Pixels that a text takes in the page's font. */
  attnviz.textWidth = (text, size = 12) => {
    measure.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return measure.measureText(text).width;
  };
  /** A text cut to so many pixels. */
  attnviz.fitted = (text, room, widthOf = (part) => attnviz.textWidth(part)) => {
    if (widthOf(text) <= room) return text;
    const characters = Array.from(text);
    while (characters.length > 1 && widthOf(`${characters.join("")}…`) > room) characters.pop();
    return `${characters.join("")}…`;
  };
  /** Cells [row, column] pointed at by the mouse and by arrow keys; null for none.
   *  at() is the one, first() where the keys begin, sizes() how many rows and columns, under(event) what the mouse is on. */
  attnviz.pointing = (element, {at, first, sizes, under, point}) => {
    element.addEventListener("mousemove", (event) => point(under(event)));
    element.addEventListener("mouseleave", () => { if (document.activeElement !== element) point(null); });
    element.addEventListener("focus", () => { if (!at()) point(first()); });
    element.addEventListener("blur", () => point(null));
    element.addEventListener("keydown", (event) => {
      const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!step || !at()) return;
      event.preventDefault();
      point(at().map((place, i) => Math.min(sizes()[i] - 1, Math.max(0, place + step[i]))));
    });
  };
  /** The cell [row, column] of a canvas that the mouse is on. */
  attnviz.cellUnder = (event, {width, height}, sizes) => {
    const box = event.currentTarget.getBoundingClientRect();
    return [(event.clientY - box.top) / height, (event.clientX - box.left) / width]
      .map((place, i) => Math.min(sizes[i] - 1, Math.max(0, Math.floor(place))));
  };
  /** A number for people. */
  attnviz.format = (value, digits = 4) => {
    if (!Number.isFinite(value)) return attnviz.say({en: "undefined", zh: "未定义"});
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(digits));
  };
  /** What fills cells that are undefined. */
  attnviz.hatching = (context, ratio) => {
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(6 * ratio);
    const draw = tile.getContext("2d");
    draw.fillStyle = attnviz.color("nothing");
    draw.fillRect(0, 0, tile.width, tile.width);
    draw.strokeStyle = attnviz.color("hatch");
    draw.lineWidth = ratio;
    for (const shift of [-1, 0, 1]) {
      draw.moveTo(-1 + shift * tile.width, tile.width + 1);
      draw.lineTo(tile.width + 1 + shift * tile.width, -1);
    }
    draw.stroke();
    return context.createPattern(tile, "repeat");
  };
})();
