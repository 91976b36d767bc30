"""Desk: what the page asks for, done, and said in the page's words; it needs no browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsediff.inside import Inside
from sparsediff.kernels.errors import SparseError
from sparsediff.ui.clips import Clips, remove_old
from sparsediff.ui.comparison import Compared, Comparison, Plans
from sparsediff.ui.figures import message, status, summary
from sparsediff.ui.gallery import Gallery
from sparsediff.ui.insides import Insides, Opened
from sparsediff.ui.job import Job
from sparsediff.ui.jobs import Jobs
from sparsediff.ui.news import News, Teller
from sparsediff.ui.own_plans import NamedPlan, OwnPlans
from sparsediff.ui.settings import Settings
from sparsediff.ui.tradeoff import History, Point

SWEEP = (0.1, 0.2, 0.35, 0.5)  # densities from coarse to careful


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """What the page shows next: a line, and what is new of a result, its files, points and plans."""

    status: str
    compared: Compared | None = None
    clips: Clips | None = None
    points: tuple[Point, ...] = ()
    plan: NamedPlan | None = None
    opened: Opened | None = None
    running: bool = True


Work = Callable[[Settings, Plans, Teller], Shown]


class Desk:
    """Takes orders from pages, by their session, and keeps the files that they play in `folder`.

    What was run is also kept in `gallery`, if there is one.
    """

    def __init__(
        self, comparison: Comparison, folder: Path, gallery: Gallery | None = None
    ) -> None:
        self.comparison = comparison
        self.folder = folder
        self.gallery = gallery
        self.jobs = Jobs()
        self.history = History()
        self.insides = Insides()
        self.plans = OwnPlans()

    def compare(self, page: str, values: Mapping[str, Any]) -> Iterator[Shown]:
        """Run a comparison of the chosen `values`; what goes wrong is said, never raised."""
        return self._run(page, values, self._compared)

    def sweep(self, page: str, values: Mapping[str, Any]) -> Iterator[Shown]:
        """Compare at every density of SWEEP, for the points only; said as `compare` does."""
        return self._run(page, values, self._swept)

    def _run(self, page: str, values: Mapping[str, Any], work: Work) -> Iterator[Shown]:
        try:
            settings = Settings(**values)
            own = self.plans.of(page)
            self.comparison.request(settings, own)  # what is wrong is said before anybody waits
        except SparseError as error:
            yield Shown(status=message(str(error), state="error"), running=False)
            return
        yield from self.follow(page, lambda tell: work(settings, own, tell))

    def follow(self, page: str, work: Callable[[Teller], Shown]) -> Iterator[Shown]:
        """Do `work` for a page, whose earlier work ends: its news, then what it returns or why not.

        Nothing is shown last where the page has started something else since.
        """
        job: Job[Shown] = Job(work)
        self.jobs.put(page, job)
        try:
            for news in job.news():
                yield Shown(status=status(news))
            if self.jobs.has(page, job):
                yield outcome(job)
        finally:
            job.stop()
            self.jobs.done(page, job)

    def _compared(self, settings: Settings, own: Plans, tell: Teller) -> Shown:
        compared = self.comparison.run(settings, tell, own)
        inside = Inside.of_result(compared.result)
        opened = Opened(settings=settings, inside=inside, log=compared.log)
        return Shown(
            status=message(summary(compared), state="done"),
            compared=compared,
            opened=self.insides.put(opened),
            clips=self._clips(compared),
            points=self.history.add(compared),
            running=False,
        )

    def _swept(self, settings: Settings, own: Plans, tell: Teller) -> Shown:
        if settings.method in {**own, **self.comparison.plans}:
            raise SparseError("A plan has one density. Choose another method to try several.")
        points: tuple[Point, ...] = ()
        for number, density in enumerate(SWEEP):

            def told(news: News, number: int = number, density: float = density) -> None:
                share = (number + news.share) / len(SWEEP)
                tell(replace(news, phase=f"Density {density:g}, {news.phase.lower()}", share=share))

            compared = self.comparison.run(replace(settings, density=density), told)
            points = self.history.add(compared)
            if self.gallery is not None:  # so that every point can be looked at
                self._clips(compared)
        said = f"{len(SWEEP)} densities were run; the chart has a point for each."
        return Shown(status=message(said, state="done"), points=points, running=False)

    def _clips(self, compared: Compared) -> Clips:
        remove_old(self.folder)
        clips = Clips.write(compared.result, self.folder)
        if self.gallery is not None:
            self.gallery.add(compared, clips)
        return clips

    def stop(self, page: str) -> None:
        """End what a page is running, at its next step."""
        self.jobs.stop(page)

    def leave(self, page: str) -> None:
        """A page was closed: end what it is running, and forget its plans."""
        self.jobs.stop(page)
        self.plans.forget(page)

    def load(self) -> None:
        """Load the model before anybody asks for it; a failure is told to who asks then."""
        job = Job(self._load)
        for _ in job.news():
            pass

    def _load(self, tell: Teller) -> None:
        with self.comparison.line.turn(lambda _: None):
            self.comparison.loaded(tell)


def outcome(job: Job[Shown]) -> Shown:
    """What a job that is over returned, or why it did not."""
    if job.outcome is None:
        state = "idle" if job.cut_short else "error"
        return Shown(status=message(job.error, state=state), running=False)
    return job.outcome
