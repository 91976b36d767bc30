"""The controls of a comparison: prompt, preset, method, and what is rarely changed, folded."""

from __future__ import annotations

from typing import Any

from sparsediff.search import METHODS
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.settings import LONGEST_PROMPT, Settings, presets

# The order in which handlers get the values.
NAMES = (
    "prompt",
    "method",
    "density",
    "warmup",
    "steps",
    "seed",
    "width",
    "height",
    "frames",
    "gate",
)


def controls(comparison: Comparison) -> dict[str, Any]:
    """Make what everybody sets inside the current layout; by the names of Settings and "preset"."""
    import gradio as gr

    made: dict[str, Any] = {}
    made["prompt"] = gr.Textbox(
        label="Prompt",
        value=comparison.recipe.prompt,
        lines=3,
        max_lines=6,
        max_length=LONGEST_PROMPT,
        elem_id="prompt",
    )
    made["preset"] = gr.Radio(
        choices=list(presets()), value="balanced", label="Preset", elem_id="preset"
    )
    made["density"] = gr.Slider(
        0.01,
        1,
        0.25,
        step=0.01,
        label="Density",
        info="share of blocks computed",
        elem_id="density",
    )
    return made


def more_controls(comparison: Comparison, made: dict[str, Any]) -> None:
    """Add what is rarely changed, folded; and what the parts do to each other."""
    import gradio as gr

    with gr.Accordion("Method, size, steps, seed", open=False):
        made["method"] = gr.Dropdown(
            choices=list(comparison.methods), value="adaspa", label="Method", elem_id="method"
        )
        made["warmup"] = gr.Slider(
            0, 0.9, 0.2, step=0.05, label="Dense share", info="of the steps, at the start"
        )
        made.update(_numbers(comparison))
        made["gate"] = gr.Checkbox(
            True,
            label="Stay dense where sparse would be slower",
            info="as measured on this machine; off runs sparse anyway",
            elem_id="gate",
        )
    _connect(made.pop("preset"), made, comparison)


def _numbers(comparison: Comparison) -> dict[str, Any]:
    import gradio as gr

    call, made = comparison.recipe.call, {}
    rows = ((("steps", "num_inference_steps"), ("seed", None)),)
    sizes = [("width", "width"), ("height", "height")]
    if not call or "num_frames" in call:  # without a recipe nobody knows yet
        sizes.append(("frames", "num_frames"))
    for row in (*rows, tuple(sizes)):
        with gr.Row():
            for name, argument in row:
                value = 0 if name == "seed" else call.get(argument or "")
                made[name] = gr.Number(
                    value, label=name.capitalize(), precision=0, min_width=70, elem_id=name
                )
    return made


def _connect(preset: Any, made: dict[str, Any], comparison: Comparison) -> None:
    """A preset sets two sliders; moving one leaves the presets; a plan has its own density."""
    import gradio as gr

    known = presets()
    sliders = [made["density"], made["warmup"]]
    hidden = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    preset.input(lambda name: list(known[name]), preset, sliders, **hidden)
    for slider in sliders:
        slider.release(lambda: None, None, preset, **hidden)

    def fixed(method: str) -> Any:
        free = method in METHODS
        return [gr.update(interactive=free)] * 3

    made["method"].change(fixed, made["method"], [*sliders, preset], **hidden)


def chosen(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    """The values of the components as keyword arguments of Settings."""
    return dict(zip(names, values, strict=True))


def restored(names: tuple[str, ...], settings: Settings, given: set[str]) -> list[Any]:
    """Updates that put `settings` into the components; only those named in an address change."""
    import gradio as gr

    return [
        gr.update(value=getattr(settings, name)) if name in given else gr.update() for name in names
    ]
