"""Past runs as a list to choose from, and the words about one that was opened, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from sparsediff.media import data_uri
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.figures import message, psnr_words, speedup_words
from sparsediff.ui.past_run import PastRun
from sparsediff.ui.run_document import model_name

_NOTHING = "Every comparison is kept here, to be opened again: its videos, figures and settings."
_INSIDE = (
    "The inside of a past run is not kept. Its settings are back: press Compare to look inside."
)


def past_runs(runs: Sequence[PastRun]) -> str:
    """A button for each run, the newest first."""
    if not runs:
        return f'<p class="sd-nothing">{escape(_NOTHING)}</p>'
    items = "".join(f"<li>{_button(run)}</li>" for run in runs)
    return f'<ul class="sd-past" aria-label="Past runs, the newest first">{items}</ul>'


def _button(run: PastRun) -> str:
    parts = (
        speedup_words(run.figures),
        psnr_words(run.figures),
        f"density {run.figures.density:.2f}",
    )
    figures = ", ".join(part for part in parts if part)
    source = f"{run.settings.method}, {run.clips.width} x {run.clips.height}, {run.model}"
    return (
        f'<button type="button" data-run="{escape(run.name, quote=True)}">{_picture(run)}'
        f"<b>{escape(run.settings.prompt) or 'no prompt'}</b><span>{escape(figures)}</span>"
        f"<small>{escape(source)}<br>{_when(run.made)}</small></button>"
    )


def _picture(run: PastRun) -> str:
    """The poster; the button says the rest."""
    try:
        return f'<img src="{data_uri(run.poster.read_bytes(), ".jpg")}" alt="">'
    except OSError:  # removed meanwhile
        return ""


def _when(made: datetime) -> str:
    """In UTC, which is right wherever the browser is."""
    return f"{made:%Y-%m-%d %H:%M} UTC"


def opened(run: PastRun, comparison: Comparison) -> str:
    """The line about a run that is shown again."""
    said = [
        f"A run of {_when(run.made)}, made on {run.device_name}, {run.dtype}. Its settings are back."
    ]
    here = model_name(comparison.model)
    if run.model != here:
        said.append(f"It was made with {run.model}; Compare runs {here}.")
    if not runnable(run, comparison):
        said.append(
            f"Its method, {run.settings.method}, is not here; choose one before you compare."
        )
    return message(" ".join(said), state="done")


def runnable(run: PastRun, comparison: Comparison) -> bool:
    """Whether the method of a run can be chosen here."""
    return run.settings.method in comparison.methods


def gone() -> str:
    """The line where a run was removed since the page listed it."""
    text = "This run is not there any more. Choose another; the list has been read again."
    return message(text, state="error")


def inside() -> str:
    """What stands in for the inside of a past run."""
    return f'<div class="sd-look"><p class="sd-nothing">{escape(_INSIDE)}</p></div>'
