"use strict";
// Passes language and theme on to the framed pages, and gives each frame the height its page asks for.
(() => {
  const frames = [...document.querySelectorAll("section.part iframe")];
  const tell = (frame) =>
    frame.contentWindow.postMessage({attnviz: {language: attnviz.language, theme: attnviz.theme}}, "*");
  frames.forEach((frame) => frame.addEventListener("load", () => tell(frame)));
  attnviz.onChange(() => frames.forEach(tell));
  addEventListener("message", (event) => {
    const frame = frames.find((candidate) => candidate.contentWindow === event.source);
    const height = event.data && event.data.attnvizHeight;
    if (frame && Number.isFinite(height)) frame.style.height = `${Math.min(Math.max(height, 80), 6000)}px`;
  });
  frames.forEach(tell);
  attnviz.ready();
})();
