// Gradio runs this once with `element`, `server`, `trigger` and `watch`.
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const rows = () => all(".sd-heads tbody tr").map((row) => [...row.querySelectorAll("button")]).filter((row) => row.length);
const asked = () => {
  const chosen = find(".sd-heads [aria-pressed=true]");
  return {
    token: find("[data-token]")?.dataset.token,
    layer: Number(chosen?.dataset.layer ?? 0),
    head: Number(chosen?.dataset.head ?? 0),
  };
};

const showStep = (index) => all(".sd-step").forEach((step, at) => { step.hidden = at !== index; });
const choose = async (button) => {
  rows().flat().forEach((other) => {
    other.setAttribute("aria-pressed", String(other === button));
    other.tabIndex = other === button ? 0 : -1;
  });
  const pane = find(".sd-head-view"), step = find(".sd-steps input")?.value;
  const maps = await server.head_maps(asked());
  if (!pane.isConnected || button.getAttribute("aria-pressed") !== "true" || typeof maps !== "string") return;
  pane.innerHTML = maps;
  const slider = find(".sd-steps input");
  if (slider && step !== undefined) { slider.value = step; showStep(Number(slider.value)); }
};
const showMap = (name) => {
  find("[data-map]").dataset.map = name;
  all("[data-show]").forEach((button) => { button.setAttribute("aria-checked", String(button.dataset.show === name)); });
};

// A run of this page ends another one, so what would start one waits as the other buttons do.
const compare = document.querySelector("#compare");
const settle = () => {
  const button = find("[data-do=measure]");
  if (button && compare) button.disabled = compare.disabled;
};
if (compare) new MutationObserver(settle).observe(compare, { attributeFilter: ["disabled"] });

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.head) choose(button);
  else if (button.dataset.show) showMap(button.dataset.show);
  else if (button.dataset.do) trigger("measure", asked());
});
element.addEventListener("input", (event) => {
  if (event.target.matches(".sd-steps input")) showStep(Number(event.target.value));
});
element.addEventListener("keydown", (event) => {
  const button = event.target.closest(".sd-heads button");
  if (!button || event.ctrlKey || event.metaKey || event.altKey) return;
  const lines = rows(), y = lines.findIndex((line) => line.includes(button)), x = lines[y].indexOf(button);
  const places = {
    ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x],
    Home: [y, 0], End: [y, lines[y].length - 1],
  };
  const place = places[event.key];
  if (!place) return;
  event.preventDefault();
  const line = lines[place[0]], next = line && line[Math.min(place[1], line.length - 1)];
  if (next) { button.tabIndex = -1; next.tabIndex = 0; next.focus(); }
});
watch("value", settle);
settle();
