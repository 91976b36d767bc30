"""Measuring: one more sparse run of a comparison, in which every head is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparsediff.inside import Inside, look_inside
from sparsediff.kernels.errors import SparseError
from sparsediff.ui.comparison import Comparison, Plans
from sparsediff.ui.desk import Desk, Shown
from sparsediff.ui.diary import Diary
from sparsediff.ui.figures import message
from sparsediff.ui.head_table import head_rows
from sparsediff.ui.head_view import head_view
from sparsediff.ui.insides import Opened
from sparsediff.ui.news import Teller
from sparsediff.ui.run_progress import RunProgress
from sparsediff.ui.settings import Settings

_GONE = "This run is not in memory any more. Press Compare, then Measure recall."


def measure(desk: Desk, page: str, asked: Mapping[str, Any]) -> Iterator[Shown]:
    """Measure the run that a page names by its "token"; what goes wrong is said.

    "layer" and "head" are those that are shown then.
    """
    opened = desk.insides.get(asked.get("token"))
    if opened is None:
        yield Shown(status=message(_GONE, state="error"), running=False)
        return
    settings, before, own = opened.settings, opened.log, desk.plans.of(page)

    def work(tell: Teller) -> Shown:
        inside, log = measured(desk.comparison, settings, tell, own)
        found = Opened(settings=settings, inside=inside, log=(*before, *log), head=_head(asked))
        words = message(_summary(inside), state="done")
        return Shown(status=words, opened=desk.insides.put(found), running=False)

    yield from desk.follow(page, work)


def measured(
    comparison: Comparison, settings: Settings, tell: Teller, own: Plans
) -> tuple[Inside, tuple[str, ...]]:
    """The inside of a run of `settings`, and what was said on the way; the model is left dense.

    It takes its turn as every run does, and no figure of a comparison changes. Raises SparseError.
    """
    request = comparison.request(settings, own)
    with Diary(tell).kept() as diary, comparison.turn(diary.tell):
        model = comparison.loaded(diary.tell)
        progress = RunProgress(diary.tell, dense=False)
        runner = progress.runner = model.runner(request, watcher=progress)
        inside = look_inside(runner, request)
    return inside, tuple(diary.lines)


def shown_head(desk: Desk, asked: object) -> str:
    """The maps of the head that a page asks for by "token", "layer" and "head", as HTML."""
    words = asked if isinstance(asked, dict) else {}
    return head_view(desk.insides.get(words.get("token")), *_head(words))


def _head(asked: Mapping[str, Any]) -> tuple[int, int]:
    """What a browser sent, if it is two numbers."""
    layer, head = asked.get("layer"), asked.get("head")
    return (layer, head) if isinstance(layer, int) and isinstance(head, int) else (0, 0)


def _summary(inside: Inside) -> str:
    rows = [row for row in head_rows(inside) if inside.recall(row.layer)]
    found = [(share, row.name, head) for row in rows for head, share in enumerate(row.recall)]
    if not found:  # look_inside has refused such a run
        raise SparseError("No head was measured in a sparse step. Use more steps.")
    steps = {step for _, step in inside.views}
    least, name, head = min(found)
    mean = sum(share for share, _, _ in found) / len(found)
    return (
        f"Measured at {len(steps)} of {len(inside.report.steps)} steps: the blocks computed hold "
        f"{mean:.2f} of the attention's weight, least in {name}, head {head}: {least:.2f}."
    )
