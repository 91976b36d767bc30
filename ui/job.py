"""Job: work in a thread of its own, whose news somebody reads, and that stops when nobody does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from sparsediff.kernels.errors import SparseError
from sparsediff.step_watch import RunStopped
from sparsediff.ui.news import News, Teller

logger = logging.getLogger("sparsediff")
T = TypeVar("T")
# Seconds between two news: a browser that is told of every quick step does nothing but show them.
PACE = 0.25


class Job(Generic[T]):
    """One piece of work, which gets a `Teller` and returns its result.

    ``outcome`` is the result once it is over, ``error`` a sentence when there is none, and then
    ``cut_short`` says whether somebody had asked it to end.
    """

    def __init__(self, work: Callable[[Teller], T]) -> None:
        self.outcome: T | None = None
        self.error = ""
        self.cut_short = False
        self._work = work
        self._stop = threading.Event()
        self._news: SimpleQueue[News | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Ask the work to end at its next step; returns at once."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to end."""
        return self._stop.is_set()

    @property
    def running(self) -> bool:
        """Whether the work goes on."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the work; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def news(self) -> Iterator[News]:
        """Start, and yield the latest news until the work is over.

        What was passed over in the meantime is left out. Whoever stops reading stops the work: a page
        that was closed leaves nothing running.
        """
        self._thread.start()
        try:
            while (found := self._latest()) is not None:
                yield found
                time.sleep(PACE)
        finally:
            self.stop()

    def _latest(self) -> News | None:
        found = self._news.get()
        while found is not None and not self._news.empty():
            later = self._news.get()
            if later is None:  # the end is told next, after the last news
                self._news.put(None)
                break
            found = later
        return found

    def _tell(self, news: News) -> None:
        if self._stop.is_set():
            raise RunStopped
        self._news.put(news)

    def _run(self) -> None:
        try:
            self.outcome = self._work(self._tell)
        except RunStopped:
            self.cut_short = True
            self.error = "Stopped. The model is as it was before."
        except SparseError as error:
            self.error = str(error)
        except Exception as error:
            # The page has to say something, and the next run has to be possible.
            logger.exception("a run of the comparison app failed")
            self.error = (
                f"This run failed unexpectedly: {type(error).__name__}. The log of the server says "
                f"more; the model is as it was before, and other settings may work."
            )
        finally:
            self._news.put(None)
