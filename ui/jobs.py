"""Jobs: the running work of every browser page, so that its Stop button finds it."""

from __future__ import annotations

import threading
from typing import Any

from sparsediff.ui.job import Job


class Jobs:
    """One job a page; a second one of the same page stops the first."""

    def __init__(self) -> None:
        self._by_page: dict[str, Job[Any]] = {}
        self._lock = threading.Lock()

    def put(self, page: str, job: Job[Any]) -> None:
        """Note the job of a page, by its session."""
        with self._lock:
            former = self._by_page.get(page)
            self._by_page[page] = job
        if former is not None:
            former.stop()

    def has(self, page: str, job: Job[Any]) -> bool:
        """Whether this job is the one that a page is running."""
        with self._lock:
            return self._by_page.get(page) is job

    def busy(self, page: str) -> bool:
        """Whether a page is running anything."""
        with self._lock:
            return page in self._by_page

    def done(self, page: str, job: Job[Any]) -> None:
        """Forget a job that is over."""
        with self._lock:
            if self._by_page.get(page) is job:
                del self._by_page[page]

    def stop(self, page: str) -> bool:
        """Stop what a page is running; whether there was anything."""
        with self._lock:
            job = self._by_page.get(page)
        if job is None:
            return False
        job.stop()
        return True

    @property
    def running(self) -> int:
        """How many pages have work that goes on."""
        with self._lock:
            return sum(job.running for job in self._by_page.values())
