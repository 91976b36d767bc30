"""The Search tab: what a search is asked for, its result, and plans as files, in and out."""

from typing import Any

from sparsediff.plans.file_limits import MOST_BYTES, PLAN
from sparsediff.ui.assets import asset
from sparsediff.ui.controls import NAMES, chosen
from sparsediff.ui.desk import Shown
from sparsediff.ui.figures import message
from sparsediff.ui.plan_desk import PlanDesk
from sparsediff.ui.plan_view import plan_view
from sparsediff.ui.search_choices import BUDGETS, EXTRAS

# No `from __future__ import annotations` here: Gradio reads `request: gr.Request` as a class.
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_INTRO = (
    "A plan says beforehand which blocks every head computes, so that a run does not have to look. "
    "It is searched for the size, steps and seed of the comparison, and belongs to this page until "
    "you leave it: download it to keep it."
)
_NAMES = ("prompts", "budget", "value", "extras")  # of SearchChoices


def search_tab() -> dict[str, Any]:
    """Make the tab's parts inside the current layout, by name."""
    import gradio as gr

    gr.HTML(f'<p class="sd-intro">{_INTRO}</p>', elem_classes="sd-bare", apply_default_css=False)
    made: dict[str, Any] = {}
    with gr.Row():
        first = next(iter(BUDGETS))
        made["budget"] = gr.Radio(
            choices=list(BUDGETS), value=first, label="Goal", elem_id="search-budget", scale=2
        )
        made["value"] = gr.Number(
            BUDGETS[first][1], label="Value", min_width=90, elem_id="search-value"
        )
    with gr.Accordion("More prompts, more patterns", open=False):
        made["prompts"] = gr.Textbox(
            label="Prompts to search on",
            info="one a line; left empty, the prompt of the comparison",
            lines=3,
            max_lines=8,
            elem_id="search-prompts",
        )
        made["extras"] = gr.CheckboxGroup(list(EXTRAS), label="Also try", elem_id="search-extras")
    with gr.Row(elem_classes="sd-buttons"):
        made["search"] = gr.Button("Search", variant="primary", elem_id="search", min_width=100)
        made["end"] = gr.Button("Stop", interactive=False, elem_id="search-stop", min_width=80)
    made["said"] = gr.HTML(
        message("One dense run and one sparse run of every prompt, then the plan itself."),
        elem_id="search-status",
        elem_classes="sd-bare",
        apply_default_css=False,
    )
    with gr.Row(elem_classes="sd-buttons"):
        made["download"] = gr.DownloadButton(
            "Download plan", interactive=False, elem_id="plan-download", min_width=100
        )
        made["upload"] = gr.HTML(
            html_template=asset("upload.html"),
            js_on_load=asset("upload.js"),
            most=MOST_BYTES[PLAN],
            elem_id="plan-upload",
            elem_classes="sd-bare",
            apply_default_css=False,
        )
    made["view"] = gr.HTML(
        plan_view(None), elem_id="plan", elem_classes="sd-bare", apply_default_css=False
    )
    return made


def connect_search(
    plans: PlanDesk, made: dict[str, Any], inputs: dict[str, Any], parts: dict[str, Any]
) -> None:
    """What the parts do; `inputs` are the controls of a comparison, `parts` those of the page."""
    import gradio as gr

    names = tuple(name for name in NAMES if name in inputs)
    own = tuple(made[name] for name in _NAMES)
    buttons = {name: parts[name] for name in ("compare", "sweep", "stop", "search")}
    shown_in = made | {"method": inputs["method"]} | buttons

    def search(request: gr.Request, *values: Any) -> Any:
        page, count = str(request.session_hash), len(_NAMES)
        choices = chosen(_NAMES, values[:count])
        choices["extras"] = tuple(choices["extras"] or ())
        choices["prompts"] = choices["prompts"] or ""
        for shown in plans.search(page, chosen(names, values[count:]), choices):
            yield _of_run(shown_in, shown) | _of_plan(plans, page, shown_in, shown)

    def upload(event: gr.EventData, request: gr.Request, *values: Any) -> Any:
        page = str(request.session_hash)
        sent = event._data if isinstance(event._data, dict) else {}
        for shown in plans.upload(page, chosen(names, values), sent):
            yield _of_plan(plans, page, shown_in, shown)

    def end(request: gr.Request) -> None:
        plans.desk.stop(str(request.session_hash))

    results = [*(made[name] for name in ("said", "view", "download")), inputs["method"]]
    outputs = [*results, made["end"], *buttons.values()]
    many = {"concurrency_limit": 16, "concurrency_id": "runs"}
    fields = [inputs[name] for name in names]
    made["search"].click(search, [*own, *fields], outputs, **many, **_PRIVATE)
    made["upload"].upload(upload, fields, results, **many, **_PRIVATE)
    made["end"].click(end, None, None, queue=False, **_PRIVATE)
    made["budget"].input(
        lambda goal: BUDGETS[goal][1], made["budget"], made["value"], queue=False, **_PRIVATE
    )


def _of_run(parts: dict[str, Any], shown: Shown) -> dict[Any, Any]:
    """Which buttons can be pressed meanwhile, by component."""
    import gradio as gr

    busy = {name: gr.update(interactive=shown.running) for name in ("stop", "end")}
    idle = gr.update(interactive=not shown.running)
    changed = busy | dict.fromkeys(("compare", "sweep", "search"), idle)
    return {parts[name]: value for name, value in changed.items()}


def _of_plan(plans: PlanDesk, page: str, parts: dict[str, Any], shown: Shown) -> dict[Any, Any]:
    """What is said, and a plan that comes, which is chosen as the method, by component."""
    import gradio as gr

    changed: dict[str, Any] = {"said": shown.status}
    if shown.plan is not None:
        changed["view"] = plan_view(shown.plan)
        changed["download"] = gr.update(value=str(plans.file(shown.plan)), interactive=True)
        changed["method"] = gr.update(choices=plans.methods(page), value=shown.plan.name)
    return {parts[name]: value for name, value in changed.items()}
