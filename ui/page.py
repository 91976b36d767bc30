"""The page: a head, controls to the left, the player and its figures to the right."""

from html import escape
from pathlib import PurePath
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.ui.clips import no_room
from sparsediff.ui.controls import NAMES, chosen, controls, more_controls, restored
from sparsediff.ui.desk import Desk, Shown
from sparsediff.ui.figures import figures, message
from sparsediff.ui.look import look
from sparsediff.ui.look_tab import connect_look, look_tab
from sparsediff.ui.past_tab import connect_past, past_tab
from sparsediff.ui.plan_desk import PlanDesk
from sparsediff.ui.player import on_screen, screen
from sparsediff.ui.run_figures import RunFigures
from sparsediff.ui.search_tab import connect_search, search_tab
from sparsediff.ui.settings import Settings
from sparsediff.ui.tradeoff_chart import tradeoff

# No `from __future__ import annotations` here: Gradio reads `request: gr.Request` as a class.
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_START = "Press Compare: the same seed is run dense, then sparse."


def page(desk: Desk) -> Any:
    """The whole app as `gradio.Blocks`, not yet launched."""
    import gradio as gr

    with gr.Blocks(
        title="sparsediff", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
    ) as blocks:
        gr.HTML(_head(desk), elem_classes="sd-bare", apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=300, elem_classes="sd-narrow"):
                inputs = controls(desk.comparison)
                with gr.Row(elem_classes="sd-buttons"):
                    compare = gr.Button(
                        "Compare", variant="primary", elem_id="compare", min_width=120, scale=2
                    )
                    stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=80)
                line = gr.HTML(message(_START), elem_id="status", apply_default_css=False)
                more_controls(desk.comparison, inputs)
            with gr.Column(scale=3, min_width=320), gr.Tabs() as tabs:
                with gr.Tab("Result", id="result"):
                    shown = screen(desk.comparison.recipe.call)
                    strip = gr.HTML(figures(None), elem_id="figures", apply_default_css=False)
                with gr.Tab("Look inside"):
                    inside = look_tab(desk)
                with gr.Tab("Search"):
                    made = search_tab()
                with gr.Tab("Trade-off"):
                    sweep = gr.Button("Try four densities", elem_id="sweep")
                    chart = gr.HTML(tradeoff(()), elem_id="tradeoff", apply_default_css=False)
        parts = {"line": line, "screen": shown, "strip": strip}
        parts |= {"inside": inside, "chart": chart}
        parts |= {"compare": compare, "sweep": sweep, "search": made["search"], "stop": stop}
        runs = _connect(desk, blocks, inputs, parts)
        connect_search(PlanDesk(desk), made, inputs, parts)
        connect_look(desk, inside, parts, _updates)
        if desk.gallery is not None:
            with tabs, gr.Tab("Past runs"):
                shelf = past_tab()
            places = {**inputs, **parts, "tabs": tabs}
            listed = connect_past(shelf, desk, desk.gallery, places)
            for moment in (blocks.load, *(run.then for run in runs)):
                moment(listed, None, shelf, queue=False, **_PRIVATE)
    return blocks


def _connect(desk: Desk, blocks: Any, inputs: dict[str, Any], parts: dict[str, Any]) -> list[Any]:
    """Say what every button does; returns the events that are runs."""
    import gradio as gr

    names = tuple(name for name in NAMES if name in inputs)

    def run(request: gr.Request, *values: Any) -> Any:
        for shown in desk.compare(str(request.session_hash), chosen(names, values)):
            yield _updates(parts, shown)

    def try_several(request: gr.Request, *values: Any) -> Any:
        for shown in desk.sweep(str(request.session_hash), chosen(names, values)):
            yield _updates(parts, shown)

    def end(request: gr.Request) -> None:
        desk.stop(str(request.session_hash))

    def leave(request: gr.Request) -> None:
        desk.leave(str(request.session_hash))

    def fill(request: gr.Request) -> Any:
        query = {name: text for name, text in request.query_params.items() if name in names}
        said = gr.update()
        try:
            settings = Settings.of_query(query)
        except SparseError as error:
            return [message(str(error), state="error"), *[gr.update() for _ in names]]
        try:
            desk.comparison.request(settings)
        except SparseError as error:  # such as a plan of a page that was left
            said = message(str(error), state="error")
            query.pop("method", None)
        return [said, *restored(names, settings, set(query))]

    fields = [inputs[name] for name in names]
    starts = [(parts["compare"].click, run), (inputs["prompt"].submit, run)]
    starts.append((parts["sweep"].click, try_several))
    many = {"concurrency_limit": 16, "concurrency_id": "runs"}
    runs = [start(work, fields, list(parts.values()), **many, **_PRIVATE) for start, work in starts]
    parts["stop"].click(end, None, None, queue=False, **_PRIVATE)
    blocks.load(fill, None, [parts["line"], *fields], queue=False, **_PRIVATE)
    blocks.unload(leave)
    return runs


def _updates(parts: dict[str, Any], shown: Shown) -> dict[Any, Any]:
    """What changes, by component of `parts`; an old result stays until the new one."""
    import gradio as gr

    changed = {"line": shown.status, "stop": gr.update(interactive=shown.running)}
    for name in ("compare", "sweep", "search"):
        changed[name] = gr.update(interactive=not shown.running)
    if shown.compared is not None and shown.clips is not None:
        address = shown.compared.settings.query()
        try:
            changed |= on_screen(parts["screen"], shown.clips, address=address)
            changed["strip"] = figures(RunFigures.of(shown.compared))
        except OSError as error:  # Gradio copies what it serves
            changed["line"] = message(no_room(error), state="error")
    if shown.opened is not None:
        changed["inside"] = look(shown.opened)
    if shown.points:
        changed["chart"] = tradeoff(shown.points)
    return {parts[name]: value for name, value in changed.items()}


def _head(desk: Desk) -> str:
    comparison = desk.comparison
    name = PurePath(comparison.model).name
    kind = "GPU" if comparison.device.startswith("cuda") else "no GPU, so times are this CPU's"
    return (
        f'<header class="sd-head"><h1><b>sparsediff</b></h1><p>{escape(name)}</p>'
        f'<p class="sd-device">{escape(comparison.device_words)} ({kind})</p></header>'
    )
