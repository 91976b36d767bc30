"""A search on the comparison's own model: its steps as news, and nothing of it left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparsediff.compare import out_of_memory
from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.driver import search
from sparsediff.pattern_search.result import SearchResult
from sparsediff.pattern_search.watch import Progress, Watch
from sparsediff.search import Step
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.news import News, Teller
from sparsediff.ui.search_choices import SearchChoices
from sparsediff.ui.settings import Settings

_PHASES = {  # by the search's own words
    "profile": "Looking at dense attention",
    "pilot": "First try",
    "trial": "Trying patterns",
    "psnr": "Running the plan",
    "speedup": "Timing the plan",
}
_SOON = 90  # seconds, which are told as they are


def searched(
    comparison: Comparison, settings: Settings, choices: SearchChoices, folder: Path, tell: Teller
) -> SearchResult:
    """Search a plan; `tell` hears of every step and may raise RunStopped.

    The work is kept in `folder`, a new one, which is gone when it is over. Whatever happens, the model
    is left dense. Raises SparseError as `sparsediff search` does.
    """
    request = choices.request(comparison, settings, folder)
    with comparison.turn(tell):
        model = comparison.loaded(tell)
        progress = SearchProgress(tell)
        try:
            watch = Watch(progress=progress.unit, step=progress.step)
            return search(request, watch, pipe=model.pipe)
        except SparseError as error:  # what are flags of the command line are fields here
            raise SparseError(str(error).replace(" --", " ")) from error
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise SparseError(
                f"{comparison.device} ran out of memory while searching. Use fewer frames or a "
                f"smaller size."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class SearchProgress:
    """What a search tells, as news with a share of all the work that never goes back."""

    def __init__(self, tell: Teller) -> None:
        self.tell = tell
        self._unit = Progress(text="", done=0, total=1)
        self._share = 0.0

    def unit(self, progress: Progress) -> None:
        """A run begins; what `tell` raises ends the search."""
        self._unit = progress
        self._reach(0.0)
        self.tell(News(phase=self._phase(), share=self._share))

    def step(self, step: Step) -> None:
        """A step of it begins; what `tell` raises ends the search."""
        self._reach(step.index / step.total if step.total else 0.0)
        phase = self._phase()
        self.tell(News(phase=phase, step=step.index + 1, total=step.total, share=self._share))

    def _reach(self, part: float) -> None:
        unit = self._unit
        # Later stages may come, and a stage may run several times over.
        self._share = max(self._share, (unit.done + part) / max(1, unit.total))

    def _phase(self) -> str:
        kind, _, rest = self._unit.text.partition(", ")
        words = f"{_PHASES.get(kind, kind)}, {rest}"
        left = self._unit.seconds_left
        if left is None:
            return words
        soon = f"{left:.0f} s" if left < _SOON else f"{left / 60:.0f} min"
        return f"{words}, about {soon} left"
