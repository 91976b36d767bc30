// Gradio runs this once with `element` and `trigger`.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-run]");
  if (button) trigger("open", { run: button.dataset.run });
});
