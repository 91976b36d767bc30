"""The tab of past runs: its list, and what happens when one is chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsediff.ui.assets import asset
from sparsediff.ui.clips import Clips
from sparsediff.ui.controls import NAMES, restored
from sparsediff.ui.desk import Desk
from sparsediff.ui.figures import figures
from sparsediff.ui.gallery import Gallery
from sparsediff.ui.past_run import PastRun
from sparsediff.ui.past_runs import gone, inside, opened, past_runs, runnable
from sparsediff.ui.player import on_screen

# No `from __future__ import annotations` here: Gradio reads `event: gr.EventData` as a class.
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
_SHOWN = ("line", "screen", "strip", "inside", "tabs")
# The chosen button is out of sight by then; the keyboard goes on where the run is shown.
_FOCUS = "() => document.querySelector('#player .sd-player')?.focus()"


def past_tab() -> Any:
    """The list, empty; only inside the layout of a page."""
    import gradio as gr

    return gr.HTML(
        past_runs(()), js_on_load=asset("past.js"), elem_id="past", apply_default_css=False
    )


def connect_past(shelf: Any, desk: Desk, gallery: Gallery, places: Mapping[str, Any]) -> Any:
    """Let the list in `shelf` open runs; returns what reads it again, for a page's other events.

    `places`: the components by name: the inputs of a comparison, and "line", "screen", "strip",
    "inside" and "tabs". A browser names a run of the list, never a file.
    """
    import gradio as gr

    names = tuple(name for name in NAMES if name in places)

    def listed() -> str:
        return past_runs(gallery.runs())

    def choose(event: gr.EventData) -> dict[Any, Any]:
        asked = event._data if isinstance(event._data, dict) else {}
        found = _taken_out(gallery, str(asked.get("run")), desk.folder)
        if found is None:
            return {places["line"]: gone(), shelf: listed()}
        run, clips = found
        known = {name for name in names if name != "method" or runnable(run, desk.comparison)}
        changed = on_screen(places["screen"], clips, address=run.settings.query())
        changed |= {"line": opened(run, desk.comparison), "strip": figures(run.figures)}
        changed |= {"inside": inside(), "tabs": gr.Tabs(selected="result")}
        changed |= dict(zip(names, restored(names, run.settings, known), strict=True))
        return {places[name]: value for name, value in changed.items()}

    shown = [places[name] for name in (*_SHOWN, *names)]
    shelf.open(choose, None, [*shown, shelf], **_PRIVATE).then(None, None, None, js=_FOCUS)
    return listed


def _taken_out(gallery: Gallery, name: str, folder: Path) -> tuple[PastRun, Clips] | None:
    """A run and copies of its clips in `folder`, from which the page may play; None if it is gone."""
    run = gallery.get(name)
    try:
        return None if run is None else (run, run.clips.copied(folder, run.name))
    except OSError:  # removed meanwhile
        return None
