"""RunProgress: the steps of the runs of one comparison as news with a share of all the work."""

from __future__ import annotations

from sparsediff.search import Step
from sparsediff.timed_run import Runner
from sparsediff.ui.news import News, Teller

_DENSE_SHARE = 0.5  # of the bar, where both halves are run


class RunProgress:
    """The watcher of a comparison's runner; tells of every step that begins.

    With `dense`, a dense run fills the first half of the share. Warm-ups do not move it.
    """

    def __init__(self, tell: Teller, *, dense: bool) -> None:
        self.tell = tell
        self.runner: Runner | None = None  # whose label says which run it is
        sparse = _DENSE_SHARE if dense else 0.0
        self._starts = {"dense": 0.0, "sparse": sparse, "measuring": 0.0}
        self._share = 0.0

    def __call__(self, step: Step) -> None:
        """Tell of a step; what is raised there ends the run."""
        label = self.runner.label if self.runner is not None else ""
        start = self._starts.get(label)
        if start is None:
            self.tell(News(phase="Warming up", share=self._share))
            return
        width = _DENSE_SHARE if label == "dense" else 1 - start
        self._share = start + width * (step.index / step.total if step.total else 0.0)
        self.tell(
            News(phase=label.capitalize(), step=step.index + 1, total=step.total, share=self._share)
        )
