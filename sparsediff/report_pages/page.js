"use strict";
(() => {
  const player = document.querySelector(".player");
  const videos = player ? [...player.querySelectorAll("video")] : [];
  if (!videos.length) return;
  const [lead, ...others] = videos;
  const fps = Number(player.dataset.fps);
  const count = Number(player.dataset.frames);
  const play = player.querySelector("[data-do=play]");
  const bar = player.querySelector("input");
  const said = player.querySelector("output");
  bar.max = count - 1;

  const frame = () => Math.min(count - 1, Math.floor(lead.currentTime * fps + 0.01));
  const show = () => {
    bar.value = frame();
    said.textContent = `frame ${frame() + 1} of ${count}`;
    play.textContent = lead.paused ? "Play" : "Pause";
  };
  // The middle of a frame: its edges round to either neighbour.
  const seek = (index) => {
    const at = (Math.max(0, Math.min(count - 1, index)) + 0.5) / fps;
    videos.forEach((video) => { video.currentTime = at; });
  };
  const pause = () => videos.forEach((video) => video.pause());
  const toggle = () => {
    if (!lead.paused) { pause(); return; }
    others.forEach((video) => { video.currentTime = lead.currentTime; });
    Promise.all(videos.map((video) => video.play())).catch(pause);
  };
  const step = (by) => { const at = frame(); pause(); seek(at + by); };
  const follow = () => {
    others.forEach((video) => {
      if (Math.abs(video.currentTime - lead.currentTime) > 0.6 / fps) video.currentTime = lead.currentTime;
    });
    show();
    if (!lead.paused) requestAnimationFrame(follow);
  };

  lead.addEventListener("play", () => requestAnimationFrame(follow));
  ["pause", "seeked", "loadedmetadata"].forEach((name) => lead.addEventListener(name, show));
  videos.forEach((video) => video.addEventListener("click", toggle));
  play.addEventListener("click", toggle);
  player.querySelector("[data-do=back]").addEventListener("click", () => step(-1));
  player.querySelector("[data-do=on]").addEventListener("click", () => step(1));
  bar.addEventListener("input", () => { pause(); seek(Number(bar.value)); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("button, input, summary, a")) return; // they have keys of their own
    const act = { " ": toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  show();
})();
