"""Diary: what a run said on its way, with the second at which it did."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sparsediff.ui.news import News, Teller

_MOST_LINES = 500


class Diary(logging.Handler):
    """The phases of a run and what sparsediff logged in its thread, as ``lines``.

    Its `tell` passes news on to another Teller.
    """

    def __init__(self, tell: Teller) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._tell = tell
        self._thread = threading.get_ident()
        self._begin = time.monotonic()
        self._phase = ""

    def tell(self, news: News) -> None:
        """Note a phase that begins, and pass the news on."""
        phase = "Waiting for other runs" if news.waiting else news.phase
        if phase != self._phase:
            self._phase = phase
            self._note(phase)
        self._tell(news)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line of the log, if it is this run's."""
        if record.thread == self._thread:
            self._note(f"{record.levelname.lower()}: {record.getMessage()}")

    def _note(self, text: str) -> None:
        if len(self.lines) < _MOST_LINES:
            self.lines.append(f"{time.monotonic() - self._begin:.2f} s  {text}")

    @contextmanager
    def kept(self) -> Iterator[Diary]:
        """Inside the with-block the log of sparsediff is read too; the end is noted."""
        logger = logging.getLogger("sparsediff")
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)
            self._note("Over")
