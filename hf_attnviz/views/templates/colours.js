"use strict";
// What pictures in colours share. Colours are ColorBrewer's GnBu and RdBu, which the colour-blind can tell apart; in the
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
