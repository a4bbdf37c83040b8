"use strict";
// Starts BertViz once for each group of maps, when it is first shown. Only the shown root is in the document:
// BertViz names its elements with fixed ids and looks some of them up globally.
(() => {
  const {view, groups, start, layer, heads, head} = attnviz.data;
  const stage = document.getElementById("stage");
  const note = document.getElementById("stage-note");
  const SVG = "http://www.w3.org/2000/svg";
  const PLENTY = 20000; // up to so many lines every one is drawn
  const MOST = 120000; // beyond, a browser no longer draws in reasonable time
  const INVISIBLE = 1 / 510; // an opacity that rounds to nothing on an 8-bit screen
  const TOKEN_WIDTH = {head_view: 100, model_view: 76, neuron_view: 104}[view];
  const WORDS = {
    "Heads": {en: "Heads", zh: "头"}, "Layers": {en: "Layers", zh: "层"},
    "Query q": {en: "Query q", zh: "查询 q"}, "Key k ": {en: "Key k", zh: "键 k"},
    "q × k (elementwise)": {en: "q × k (elementwise)", zh: "q × k（逐元素）"},
    "Softmax": {en: "Softmax", zh: "权重"}, "No token selected": {en: "No token selected", zh: "未选择词元"},
  };

  let faintest = 0;
  const append = d3.selection.prototype.append;
  d3.selection.prototype.append = function (name) {
    if (!faintest || (name !== "line" && name !== "path")) return append.call(this, name);
    return this.select(function (weight) {
      if (typeof weight === "number" && weight < faintest) return null; // d3 leaves a gap, indices stay right
      return this.appendChild(document.createElementNS(SVG, name));
    });
  };

  /** The weight below which lines are left out, so that at most MOST are drawn at once. */
  function threshold(group, codes) {
    const slab = group.heads * group.left.length * group.right.length;
    const atOnce = {head_view: slab, model_view: codes.length, neuron_view: slab / group.heads}[view];
    const room = view === "neuron_view" ? MOST / 6 : MOST;
    if (atOnce <= PLENTY) return 0;
    let code = 1;
    for (let from = 0; from < codes.length; from += atOnce) {
      const counts = new Uint32Array(256);
      for (let i = from; i < from + atOnce; i++) counts[codes[i]]++;
      let kept = 0;
      let lowest = 256;
      while (lowest > 1 && kept + counts[lowest - 1] <= room) kept += counts[--lowest];
      code = Math.max(code, lowest);
    }
    return Math.max(INVISIBLE, ((code - 0.5) / 255) ** 2);
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

  function weights(group, codes, [top, bottom], [first, last]) {
    const rows = group.left.length;
    const columns = group.right.length;
    return lazily(group.layers.length, (l) => Array.from({length: group.heads}, (_, h) =>
      Array.from({length: bottom - top}, (_, r) => {
        const from = ((l * group.heads + h) * rows + top + r) * columns;
        return Array.from(codes.subarray(from + first, from + last), (code) => (code / 255) ** 2);
      })));
  }

  /** One side's vectors [layer][head][position][number]; keys are repeated over the heads of their group. */
  function vectors(group, unpacked, side, [first, last], factor) {
    const positions = side === "queries" ? group.left.length : group.right.length;
    return lazily(group.layers.length, (l) => {
      const {size} = group.vectors[l];
      const {units, heads: own} = group.vectors[l][side];
      const scale = factor(size);
      const made = units.map((unit, h) => Array.from({length: last - first}, (_, p) => {
        const from = (h * positions + first + p) * size;
        return Array.from(unpacked[l][side].subarray(from, from + size), (code) => code * unit * scale);
      }));
      return Array.from({length: group.heads}, (_, h) => made[Math.floor(h * own / group.heads)]);
    });
  }

  async function attention(group, codes) {
    const whole = {name: {en: "All", zh: "全部"}, left: [0, group.left.length], right: [0, group.right.length]};
    const found = {};
    const unpacked = [];
    for (const one of group.vectors || []) {
      unpacked.push({
        queries: new Int16Array(await attnviz.unpack(one.queries.codes)),
        keys: new Int16Array(await attnviz.unpack(one.keys.codes)),
      });
    }
    [whole, ...group.filters].forEach((part, number) => {
      found[number] = {
        name: part.name,
        attn: weights(group, codes, part.left, part.right),
        left_text: group.left.slice(...part.left),
        right_text: group.right.slice(...part.right),
      };
      if (group.vectors) {
        // BertViz divides by √size; the queries already carry the model's scaling.
        found[number].queries = vectors(group, unpacked, "queries", part.left, (size) => Math.sqrt(size));
        found[number].keys = vectors(group, unpacked, "keys", part.right, () => 1);
      }
    });
    return found;
  }

  function select(id, label) {
    const element = attnviz.make("select", {id});
    const caption = attnviz.make("span", {"data-words": JSON.stringify(label)});
    return attnviz.make("label", {}, caption, element);
  }

  /** The root element with the menus that BertViz fills. */
  function rootOf(id, parts) {
    const controls = attnviz.make("div", {className: "controls"});
    if (view !== "model_view") controls.append(select("layer", {en: "Layer", zh: "层"}));
    if (view === "neuron_view") controls.append(select("att_head", {en: "Head", zh: "头"}));
    if (Object.keys(parts).length > 1) {
      const filter = select("filter", {en: "Attention", zh: "注意力"});
      Object.entries(parts).forEach(([value, part]) => {
        filter.lastChild.append(attnviz.make("option", {value, "data-words": JSON.stringify(part.name)}));
      });
      controls.append(filter);
    }
    return attnviz.make("div", {id, className: "root"}, controls, attnviz.make("div", {id: "vis"}));
  }

  const canvas = document.createElement("canvas").getContext("2d");
  function shorten(element) {
    const full = element.textContent;
    if (element.dataset.full !== undefined) return;
    element.dataset.full = full;
    canvas.font = `${element.getAttribute("font-size")} ${getComputedStyle(element).fontFamily}`;
    if (canvas.measureText(full).width <= TOKEN_WIDTH) return;
    const characters = Array.from(full);
    while (characters.length > 1 && canvas.measureText(`${characters.join("")}…`).width > TOKEN_WIDTH) characters.pop();
    element.textContent = `${characters.join("")}…`;
    const title = document.createElementNS(SVG, "title");
    title.textContent = full;
    element.append(title);
  }

  function press(element, name) {
    element.dispatchEvent(new MouseEvent(name, {bubbles: true, cancelable: true}));
  }
  /** A part of the drawing that the keyboard can reach and use. */
  function reachable(element, role, name, keys) {
    if (element.hasAttribute("tabindex")) return;
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", role);
    element.setAttribute("aria-label", name);
    element.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
  function tokenGroups(root) {
    const places = {head_view: ["#left", "#right"], model_view: [], neuron_view: ["#expanded #leftText", "#collapsed #leftText"]}[view];
    return places.flatMap((place) => [...root.querySelectorAll(`${place} g`)])
      .filter((group) => group.querySelector(":scope > text"));
  }

  /** What BertViz' drawing lacks: words in both languages, long tokens cut with the whole as a hint, keyboard use. */
  function finish(shown) {
    const {root, group} = shown;
    const svg = root.querySelector("svg");
    for (const element of root.querySelectorAll("[data-words]")) {
      element.textContent = attnviz.say(JSON.parse(element.dataset.words));
    }
    const tokens = {head_view: "#left text, #right text", model_view: "text.token", neuron_view: "text.token"}[view];
    root.querySelectorAll(tokens).forEach(shorten);
    const headings = {head_view: "none", model_view: "svg > text", neuron_view: "#heading text"}[view];
    for (const element of root.querySelectorAll(headings)) {
      const word = element.dataset.word || element.textContent;
      const detail = /^Layer (\d+), Head (\d+)$/.exec(word);
      if (!WORDS[word] && !detail) continue;
      element.dataset.word = word;
      element.textContent = attnviz.say(WORDS[word] || {en: word, zh: detail && `第 ${detail[1]} 层，第 ${detail[2]} 头`});
    }
    for (const token of tokenGroups(root)) {
      if (token.hasAttribute("tabindex")) continue;
      const text = token.querySelector("text");
      const toggle = [...token.querySelectorAll("rect")].pop();
      reachable(token, "button", text.dataset.full, view === "neuron_view" ? {Enter: () => press(toggle, "click")} : {});
      token.addEventListener("focus", () => press(token, "mouseover"));
      token.addEventListener("blur", () => {
        const target = view === "head_view" ? token.parentNode.parentNode : token;
        target.dispatchEvent(new MouseEvent("mouseleave"));
      });
    }
    if (view === "head_view") {
      const squares = [...svg.lastElementChild.querySelectorAll("rect")];
      svg.style.minWidth = `${Math.max(345, squares.length * 20 + 4)}px`;
      squares.forEach((square, h) => {
        const name = attnviz.say({en: `Head ${h}`, zh: `第 ${h} 头`});
        reachable(square, "checkbox", name, {" ": () => press(square, "click"), Enter: () => press(square, "dblclick")});
        square.setAttribute("aria-label", name);
        square.style.cursor = "pointer";
        square.setAttribute("aria-checked", String(square.getAttribute("fill") === d3.schemeCategory10[h % 10]));
        const title = square.querySelector("title") || square.appendChild(document.createElementNS(SVG, "title"));
        title.textContent = name;
      });
    }
    if (view === "model_view") {
      svg.querySelectorAll(":scope > g > rect:last-child").forEach((square, number) => {
        const l = group.layers[Math.floor(number / group.heads)];
        const name = attnviz.say({en: `Layer ${l}, head ${number % group.heads}`, zh: `第 ${l} 层，第 ${number % group.heads} 头`});
        reachable(square, "button", name, {Enter: () => press(square, "click"), " ": () => press(square, "click")});
        square.setAttribute("aria-label", name);
      });
    }
    if (view === "neuron_view") {
      // BertViz makes room for the tokens on the right only.
      const {left_text: left, right_text: right} = shown.parts[root.querySelector("#filter")?.value || "0"];
      svg.setAttribute("height", `${Math.max(left.length, right.length) * 26 + 70}px`);
      [...root.querySelectorAll("#layer option")].forEach((option) => {
        option.textContent = group.layers[+option.value];
      });
    }
    note.textContent = shown.faintest > INVISIBLE ? attnviz.say({
      en: `There are more lines than a browser can draw: weights below ${shown.faintest.toFixed(3)} are left out of this drawing.`,
      zh: `线条多于浏览器所能绘制：本图略去了小于 ${shown.faintest.toFixed(3)} 的权重。`,
    }) : "";
  }

  const shownBefore = new Map(); // group number → {root, group, faintest, theme}
  let current = null;
  let latest = 0;

  function draw(number, parts, limit, chosen) {
    const group = groups[number];
    const root = rootOf(`bertviz-${number}`, parts);
    stage.replaceChildren(root);
    faintest = limit;
    const first = number === start;
    const params = {
      attention: parts, default_filter: chosen.filter || "0", root_div_id: root.id, display_mode: "light",
      include_layers: group.layers, include_heads: Array.from({length: group.heads}, (_, h) => h),
      total_heads: group.heads, heads: first ? heads : null, bidirectional: group.bidirectional,
      layer: view === "neuron_view" ? (first ? layer : 0) : group.layers[first ? layer : 0],
      head: first ? head : 0,
    };
    if (view === "neuron_view") {
      params.display_mode = attnviz.theme;
      if (chosen.layer !== undefined) [params.layer, params.head] = [+chosen.layer, +chosen.head];
    }
    const libraries = {jquery: jQuery, d3};
    const requirejs = (names, make) => make(...names.map((name) => libraries[name]));
    const place = {bertviz_params: params};
    runBertviz(params, place, {config() {}}, requirejs, {log() {}});
    if (chosen.filter) root.querySelector("#filter").value = chosen.filter;
    const shown = {root, group, parts, faintest: limit, theme: attnviz.theme, number};
    for (const event of ["change", "click", "dblclick"]) {
      root.addEventListener(event, () => { faintest = limit; finish(shown); });
    }
    shownBefore.set(number, shown);
    return shown;
  }

  async function show(number) {
    const mine = ++latest;
    let shown = shownBefore.get(number);
    if (shown) {
      stage.replaceChildren(shown.root);
    } else {
      stage.setAttribute("aria-busy", "true");
      const codes = new Uint8Array(await attnviz.unpack(groups[number].weights));
      const parts = await attention(groups[number], codes);
      if (mine !== latest) return; // another stack was chosen meanwhile
      shown = draw(number, parts, threshold(groups[number], codes), {});
    }
    current = shown;
    faintest = shown.faintest;
    refresh();
    stage.setAttribute("aria-busy", "false");
    stage.dataset.group = String(number);
  }

  /** After a change of language or theme. Only the neuron view bakes its colours in and is drawn anew. */
  function refresh() {
    if (!current) return;
    if (view === "neuron_view" && current.theme !== attnviz.theme) {
      const value = (id) => current.root.querySelector(id)?.value;
      const chosen = {layer: value("#layer"), head: value("#att_head"), filter: value("#filter")};
      current = draw(current.number, current.parts, current.faintest, chosen);
    }
    finish(current);
  }

  attnviz.onChange(refresh);
  if (groups.length > 1) {
    const options = groups.map((group, number) => [String(number), group.name]);
    const menu = attnviz.menu("stack", {en: "Stack", zh: "堆栈"}, options, String(start));
    document.getElementById("stack-controls").append(menu);
    menu.querySelector("select").addEventListener("change", (event) => show(+event.target.value).catch(attnviz.fail));
  }
  show(start).then(attnviz.ready, attnviz.fail);
})();
