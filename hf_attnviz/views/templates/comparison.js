"use strict";
// Bars in a table: the share of each word in two texts, and the change. Two menus choose the mean over all, a layer, a head.
(async () => {
  const {words, layers, heads} = attnviz.data;
  const values = new Float32Array(await attnviz.unpack(attnviz.data.values));
  const body = document.querySelector("#bars tbody");
  const all = {en: "mean over all", zh: "全部平均"};
  const chosen = {layer: -1, head: -1};

  function mean(side, word) {
    let [total, count] = [0, 0];
    layers.forEach((_, layer) => heads.forEach((_, head) => {
      if ((chosen.layer >= 0 && layer !== chosen.layer) || (chosen.head >= 0 && head !== chosen.head)) return;
      const value = values[((side * layers.length + layer) * heads.length + head) * words.length + word];
      if (Number.isFinite(value)) { total += value; count += 1; }
    }));
    return count ? total / count : NaN;
  }
  const format = (value, sign) => {
    if (!Number.isFinite(value)) return "–";
    const text = Math.abs(value) < 0.0005 ? "0" : value.toFixed(3);
    return sign && value >= 0.0005 ? `+${text}` : text.replace("-", "−");
  };
  function cell(value, most, side) {
    const fill = attnviz.make("div", {className: side < 2 ? `fill side-${side}` : `fill ${value < 0 ? "less" : "more"}`});
    const share = Number.isFinite(value) && most ? (Math.abs(value) / most) * 100 : 0;
    if (side < 2) Object.assign(fill.style, {left: "0", width: `${share}%`});
    else Object.assign(fill.style, {width: `${share / 2}%`, left: value < 0 ? `${50 - share / 2}%` : "50%"});
    const track = attnviz.make("div", {className: side < 2 ? "track" : "track middle", "aria-hidden": "true"}, fill);
    return attnviz.make("td", {}, track, attnviz.make("span", {className: "number"}, format(value, side === 2)));
  }
  function draw() {
    const rows = words.map((_, word) => [0, 1, 2].map((side) => mean(side, word)));
    const largest = (sides) => Math.max(0, ...rows.flatMap((row) => sides.map((n) => Math.abs(row[n]))).filter(Number.isFinite));
    const [most, mostChange] = [largest([0, 1]), largest([2])];
    body.replaceChildren(...rows.map((row, word) => attnviz.make("tr", {},
      attnviz.make("th", {scope: "row"}, attnviz.say(words[word])),
      ...row.map((value, side) => cell(value, side < 2 ? most : mostChange, side)))));
  }
  function menu(name, label, labels) {
    if (labels.length < 2) return;
    const options = [["-1", all], ...labels.map((text, i) => [String(i), text])];
    const made = attnviz.menu(name, label, options, "-1");
    made.querySelector("select").addEventListener("change", (event) => { chosen[name] = +event.target.value; draw(); });
    document.getElementById("menus").append(made);
  }
  menu("layer", {en: "layer", zh: "层"}, layers);
  menu("head", {en: "head", zh: "头"}, heads);
  draw();
  attnviz.onChange(draw);
  attnviz.ready();
})().catch(attnviz.fail);
