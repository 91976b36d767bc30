// Gradio runs this once with `element` and `trigger`. The file's content is sent, never a path: the server
// keeps no file of it. What is larger than any plan is not even read.
element.addEventListener("change", (event) => {
  const field = event.target, file = field.files && field.files[0];
  if (!file) return;
  const send = (content) => {
    field.value = "";  // so that the same file can be chosen again
    trigger("upload", { name: file.name, size: file.size, content });
  };
  if (file.size > Number(field.dataset.most)) { send(""); return; }
  const reader = new FileReader();
  reader.onload = () => send(reader.result.split(",")[1] || "");
  reader.onerror = () => send("?");
  reader.readAsDataURL(file);
});
