"""The Look inside tab: its one part, whose buttons ask for a head's maps and for a measurement."""

from collections.abc import Callable
from typing import Any

from sparsediff.ui.assets import asset
from sparsediff.ui.desk import Desk, Shown
from sparsediff.ui.look import look
from sparsediff.ui.measuring import measure, shown_head

# No `from __future__ import annotations` here: Gradio reads `event: gr.EventData` as a class.
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


def look_tab(desk: Desk) -> Any:
    """The inside of a run, empty; only inside the layout of a page."""
    import gradio as gr

    def head_maps(asked: Any) -> str:
        return shown_head(desk, asked)

    return gr.HTML(
        look(None),
        js_on_load=asset("look.js"),
        server_functions=[head_maps],
        elem_id="look",
        apply_default_css=False,
    )


def connect_look(
    desk: Desk,
    inside: Any,
    parts: dict[str, Any],
    updates: Callable[[dict[str, Any], Shown], dict[Any, Any]],
) -> None:
    """Let the button in `inside` measure; `updates` says what changes of the page's `parts`."""
    import gradio as gr

    def run(event: gr.EventData, request: gr.Request) -> Any:
        asked = event._data if isinstance(event._data, dict) else {}
        for shown in measure(desk, str(request.session_hash), asked):
            yield updates(parts, shown)

    many = {"concurrency_limit": 16, "concurrency_id": "runs"}
    inside.measure(run, None, list(parts.values()), **many, **_PRIVATE)
