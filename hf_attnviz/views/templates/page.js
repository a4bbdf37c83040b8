"use strict";
// Language, theme, unpacking and making, for every page. One name: attnviz.
const attnviz = (() => {
  const root = document.documentElement;
  const listeners = [];
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let chosenTheme = null;
  let framedByUs = false;

  const self = {
    data: null,
    get language() { return root.lang; },
    get theme() { return root.dataset.theme; },
    onChange(listener) { listeners.push(listener); },
    /** The text of {en, zh} in the chosen language. */
    say(text) { return typeof text === "string" ? text : text[root.lang]; },
    color(name) { return getComputedStyle(root).getPropertyValue(`--${name}`).trim(); },
    ready() { root.dataset.ready = "yes"; },
    fail(error) {
      const box = document.createElement("p");
      box.className = "failure";
      box.setAttribute("role", "alert");
      box.textContent = self.say({en: "This page could not be drawn: ", zh: "无法绘制此页面：" }) + error.message;
      document.querySelector("main").prepend(box);
      throw error;
    },
    /** The bytes of a packed string (base64 of zlib). */
    async unpack(text) {
      if (typeof DecompressionStream === "undefined") {
        throw new Error(self.say({en: "the browser is too old (no DecompressionStream)", zh: "浏览器版本过旧（缺少 DecompressionStream）"}));
      }
      const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      return new Response(stream).arrayBuffer();
    },
    /** The number that 16 bits stand for (IEEE half precision). */
    half(bits) {
      const [sign, power, part] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
      if (power === 31) return part ? NaN : sign * Infinity;
      return sign * (power ? 2 ** (power - 15) * (1 + part / 1024) : 2 ** -24 * part);
    },
    /** The weight of a code of views/encoding.py: a byte (the rounded square root), or 16 bits. */
    weight(code, exact) { return exact ? self.half(code) : (code / 255) ** 2; },
    /** An element with properties and children; text is always text. */
    make(tag, properties = {}, ...children) {
      const element = document.createElement(tag);
      for (const [name, value] of Object.entries(properties)) {
        if (name === "className" || name === "textContent" || name === "value") element[name] = value;
        else element.setAttribute(name, value);
      }
      element.append(...children);
      return element;
    },
    /** The same for a picture of lines (SVG). */
    svg(tag, properties = {}, ...children) {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
      element.append(...children);
      return element;
    },
    /** Calls once a frame while the window grows wider or narrower. */
    onResize(listener) {
      let [width, waiting] = [innerWidth, 0];
      addEventListener("resize", () => {
        if (innerWidth === width) return;
        width = innerWidth;
        cancelAnimationFrame(waiting);
        waiting = requestAnimationFrame(() => listener());
      });
    },
    /** A labelled menu; options are [value, text]. Its words follow the language. */
    menu(id, label, options, chosen) {
      const select = self.make("select", {id});
      const caption = self.make("span");
      for (const [value, text] of options) {
        const option = self.make("option", {value});
        option.words = text;
        select.append(option);
      }
      if (chosen !== undefined) select.value = chosen;
      const words = () => {
        caption.textContent = self.say(label);
        for (const option of select.options) option.textContent = self.say(option.words);
      };
      words();
      self.onChange(words);
      return self.make("label", {}, caption, select);
    },
  };

  const effectiveTheme = () => chosenTheme || (prefersDark.matches ? "dark" : "light");
  function words() {
    for (const element of document.querySelectorAll("[data-label-en]")) {
      element.setAttribute("aria-label", element.getAttribute(`data-label-${root.lang}`));
      element.title = element.getAttribute(`data-label-${root.lang}`);
    }
    if (document.body) document.title = document.body.getAttribute(`data-title-${root.lang}`);
  }
  function apply(language, theme) {
    if (language === root.lang && theme === root.dataset.theme) return;
    root.lang = language;
    root.dataset.theme = theme;
    words();
    listeners.forEach((listener) => listener());
  }
  root.dataset.theme = effectiveTheme();
  prefersDark.addEventListener("change", () => apply(root.lang, effectiveTheme()));
  addEventListener("message", (event) => {
    const wish = event.source === parent && event.data && event.data.attnviz;
    if (!wish || !["en", "zh"].includes(wish.language) || !["light", "dark"].includes(wish.theme)) return;
    framedByUs = true;
    root.classList.add("framed");
    chosenTheme = wish.theme;
    apply(wish.language, wish.theme);
    tellHeight();
  });
  function tellHeight() {
    if (framedByUs) parent.postMessage({attnvizHeight: Math.ceil(document.body.getBoundingClientRect().height) + 4}, "*");
  }
  document.addEventListener("DOMContentLoaded", () => {
    words();
    document.getElementById("switch-language").addEventListener("click", () => apply(root.lang === "en" ? "zh" : "en", root.dataset.theme));
    document.getElementById("switch-theme").addEventListener("click", () => {
      chosenTheme = root.dataset.theme === "dark" ? "light" : "dark";
      apply(root.lang, chosenTheme);
    });
    new ResizeObserver(tellHeight).observe(document.body);
  });
  // The data element stands before the scripts that read it, so it is there on first use.
  Object.defineProperty(self, "data", {
    get() {
      const value = JSON.parse(document.getElementById("attnviz-data").textContent);
      Object.defineProperty(self, "data", {value});
      return value;
    },
    configurable: true,
  });
  return self;
})();
