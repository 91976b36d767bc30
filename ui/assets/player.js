// Gradio runs this once with `element`, `props` and `watch`. One clock, that of the dense video, leads.
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const videos = () => all(".sd-media video");
let clip = null;

const count = () => (clip ? clip.frames : 1);
const frame = () => {
  const lead = videos()[0];
  return lead ? Math.min(count() - 1, Math.floor(lead.currentTime * clip.fps + 0.01)) : 0;
};

const show = () => {
  const lead = videos()[0];
  if (!lead) return;
  const playing = !lead.paused;
  find(".sd-time").value = frame();
  find(".sd-frame").textContent = `${frame() + 1} / ${count()}`;
  const play = find("[data-do=play]");
  play.textContent = playing ? "\u275A\u275A" : "\u25B6\uFE0E";
  play.setAttribute("aria-label", playing ? "Pause" : "Play");
};

// The middle of a frame: its edges round to either neighbour.
const seek = (index) => {
  const at = (Math.max(0, Math.min(count() - 1, index)) + 0.5) / clip.fps;
  videos().forEach((video) => { video.currentTime = at; });
};
const pause = () => videos().forEach((video) => video.pause());
// Both run in a loop, so the end of one is as near to the beginning of the other as can be.
const apart = (lead, other) => {
  const distance = Math.abs(other.currentTime - lead.currentTime);
  return Math.min(distance, Math.abs(lead.duration - distance));
};
const follow = () => {
  const [lead, other] = videos();
  if (!lead || lead.paused) { show(); return; }
  if (apart(lead, other) > 0.03 && !other.seeking) other.currentTime = lead.currentTime;
  show();
  requestAnimationFrame(follow);
};
const toggle = () => {
  const [lead, other] = videos();
  if (!lead) return;
  if (!lead.paused) { pause(); show(); return; }
  other.currentTime = lead.currentTime;
  Promise.all([lead.play(), other.play()]).then(follow).catch(pause);
};
const step = (by) => { if (videos().length) { const at = frame(); pause(); seek(at + by); } };

const look = (view) => {
  find(".sd-player").dataset.view = view;
  all(".sd-views button").forEach((button) => {
    button.setAttribute("aria-checked", String(button.dataset.view === view));
  });
};
const still = () => clip?.frames === 1;  // a picture has no time to move in, so the arrows move the wipe
const arrow = (by) => { if (still()) split(Number(find(".sd-split").value) + 2 * by); else step(by); };
const split = (percent) => {
  const at = Math.max(0, Math.min(100, percent));
  find(".sd-stage").style.setProperty("--split", `${at}%`);
  find(".sd-split").value = at;
};

const medium = (kind, source, which) => {
  const made = document.createElement(kind);
  made.className = `sd-${which}`;
  made.src = source;
  if (kind === "video") {
    Object.assign(made, { muted: true, loop: true, playsInline: true, preload: "auto" });
    made.setAttribute("aria-label", `${which} result`);
    ["seeked", "pause", "loadedmetadata"].forEach((name) => made.addEventListener(name, show));
  } else {
    made.alt = `${which} result`;
  }
  return made;
};

const load = () => {
  clip = props.value;
  if (clip?.address !== undefined) history.replaceState(null, "", clip.address || location.pathname);
  const player = find(".sd-player");
  if (!player) return;
  const filled = Boolean(clip && clip.dense);
  player.dataset.state = filled ? "filled" : "empty";
  player.dataset.kind = still() ? "img" : "video";
  player.dataset.label ??= player.getAttribute("aria-label");
  player.setAttribute("aria-label", still() ? player.dataset.stillLabel : player.dataset.label);
  if (clip && clip.width) player.style.setProperty("--ratio", clip.width / clip.height);
  if (!filled) return;
  const kind = player.dataset.kind;
  player.dataset.small = String(clip.width < 256);
  find(".sd-media").replaceChildren(medium(kind, clip.dense, "dense"), medium(kind, clip.sparse, "sparse"));
  all(".sd-transport button, .sd-time").forEach((part) => { part.disabled = kind === "img"; });
  find(".sd-time").max = count() - 1;
  find(".sd-frame").textContent = `1 / ${count()}`;
  split(50);
  look(player.dataset.view);
  if (kind === "video" && !matchMedia("(prefers-reduced-motion: reduce)").matches) toggle();
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.view) look(button.dataset.view);
  else ({ play: toggle, back: () => step(-1), on: () => step(1) })[button.dataset.do]();
});
element.addEventListener("input", (event) => {
  if (event.target.matches(".sd-split")) split(Number(event.target.value));
  if (event.target.matches(".sd-time")) { pause(); seek(Number(event.target.value)); }
});
const drag = (event) => {
  const stage = event.target.closest(".sd-stage");
  if (!stage || !clip || !(event.buttons & 1)) return;
  const box = stage.getBoundingClientRect();
  split((100 * (event.clientX - box.left)) / box.width);
};
element.addEventListener("pointerdown", (event) => {
  if (event.target.closest(".sd-stage")) event.target.closest(".sd-stage").setPointerCapture(event.pointerId);
  drag(event);
});
element.addEventListener("pointermove", drag);
element.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.matches("input") && event.key.startsWith("Arrow");
  const pressed = event.target.matches("button") && event.key === " ";
  const acts = {
    " ": toggle, ArrowLeft: () => arrow(-1), ArrowRight: () => arrow(1),
    w: () => look("wipe"), d: () => look("dense"), s: () => look("sparse"), x: () => look("difference"),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act && !own && !pressed) { event.preventDefault(); act(); }
});

watch("value", load);
load();
