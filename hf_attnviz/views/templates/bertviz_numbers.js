"use strict";
// The numbers of a group of maps as BertViz reads them: attn[layer][head][query][key], made when first read.
(() => {
  const BINS = 256; // by the square root of the weight

  /** What each code of a weight stands for: the square of a byte, or float16's bits. */
  function meanings(exact) {
    if (!exact) return Float32Array.from({length: 256}, (_, code) => (code / 255) ** 2);
    return Float32Array.from({length: 0x3c01}, (_, code) => { // 0 to 1; no weight is beyond
      const power = code >> 10;
      const part = (code & 1023) / 1024;
      return power ? (1 + part) * 2 ** (power - 15) : part * 2 ** -14;
    });
  }

  /** A list whose items are made when first read. */
  function lazily(length, make) {
    const list = new Array(length);
    for (let i = 0; i < length; i++) {
      Object.defineProperty(list, i, {
        configurable: true, enumerable: true,
        get() {
          const value = make(i);
          Object.defineProperty(list, i, {value});
          return value;
        },
      });
    }
    return list;
  }

  class Numbers {
    constructor(group, layers, vectors) {
      Object.assign(this, {group, layers, vectors, meaning: meanings(group.exact)});
      this.columns = group.right.length;
      this.widths = group.widths || group.left.map(() => this.columns); // of causal maps the triangle alone is stored
      let from = 0;
      this.starts = this.widths.map((width) => (from += width) - width);
      this.slab = from;
    }

    weights([top, bottom], [first, last]) {
      return lazily(this.layers.length, (l) => this.group.heads.map((_, h) =>
        Array.from({length: bottom - top}, (_, r) => {
          const from = h * this.slab + this.starts[top + r];
          const width = this.widths[top + r];
          return Array.from({length: last - first}, (_, c) =>
            first + c < width ? this.meaning[this.layers[l][from + first + c]] : 0);
        })));
    }

    /** One side's vectors [layer][head][position][number]; keys are repeated over the heads of their group. */
    sides(side, [first, last], factor) {
      const positions = side === "queries" ? this.group.left.length : this.columns;
      return lazily(this.layers.length, (l) => {
        const {size, key_of} = this.group.numbers[l];
        const {units} = this.group.numbers[l][side];
        const codes = this.vectors[l][side];
        const made = units.map((unit, h) => Array.from({length: last - first}, (_, p) => {
          const from = (h * positions + first + p) * size;
          return Array.from(codes.subarray(from, from + size), (code) => code * unit * factor(size));
        }));
        return side === "queries" ? made : key_of.map((own) => made[own]);
      });
    }

    /** What BertViz gets: all tokens, and each text of a pair with each. */
    parts() {
      const whole = {name: {en: "All", zh: "全部"}, left: [0, this.group.left.length], right: [0, this.columns]};
      const found = {};
      [whole, ...this.group.filters].forEach((part, number) => {
        found[number] = {
          name: part.name,
          attn: this.weights(part.left, part.right),
          left_text: this.group.left.slice(...part.left),
          right_text: this.group.right.slice(...part.right),
        };
        if (this.vectors) {
          // BertViz divides by √size; the queries already carry the model's scaling.
          found[number].queries = this.sides("queries", part.left, Math.sqrt);
          found[number].keys = this.sides("keys", part.right, () => 1);
        }
      });
      return found;
    }

    /** The weight below which lines are left out, so that of `atOnce` heads no more than `room` are drawn. */
    threshold(atOnce, room) {
      const bin = Uint8Array.from(this.meaning, (weight) => Math.round((BINS - 1) * Math.sqrt(weight)));
      const heads = this.group.heads.length;
      let code = 1;
      let counts = new Uint32Array(BINS);
      for (let n = 0; n < this.layers.length * heads; n++) {
        const codes = this.layers[Math.floor(n / heads)];
        const from = (n % heads) * this.slab;
        for (let i = from; i < from + this.slab; i++) counts[bin[codes[i]]]++;
        if ((n + 1) % atOnce) continue;
        let kept = 0;
        let lowest = BINS;
        while (lowest > 1 && kept + counts[lowest - 1] <= room) kept += counts[--lowest];
        code = Math.max(code, lowest);
        counts = new Uint32Array(BINS);
      }
      return ((code - 0.5) / (BINS - 1)) ** 2;
    }
  }

  attnviz.numbers = async (group) => {
    const Codes = group.exact ? Uint16Array : Uint8Array;
    const layers = [];
    const vectors = [];
    for (const one of group.numbers) {
      layers.push(new Codes(await attnviz.unpack(one.weights)));
      if (!one.queries) continue;
      const [queries, keys] = [await attnviz.unpack(one.queries.codes), await attnviz.unpack(one.keys.codes)];
      vectors.push({queries: new Int16Array(queries), keys: new Int16Array(keys)});
    }
    return new Numbers(group, layers, vectors.length ? vectors : null);
  };

  /** A library that lies packed in the page. */
  attnviz.library = async (packed) => {
    const source = new TextDecoder().decode(await attnviz.unpack(packed));
    document.head.append(attnviz.make("script", {textContent: source}));
  };
})();
