"""Line: who may use the model, one at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 0.2  # seconds after which somebody who waits is told again, and may give up


class Line:
    """A queue for the one model; the same for all browsers and all kinds of work."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def turn(self, tell: Callable[[int], None]) -> Iterator[None]:
        """Wait for the turn, which lasts as long as the with-block.

        `tell` gets the number of those before, again and again; what it raises gives up the place.
        """
        ticket = object()
        with self._moved:
            self._waiting.append(ticket)
        try:
            self._wait(ticket, tell)
            yield
        finally:
            with self._moved:
                self._waiting.remove(ticket)
                self._moved.notify_all()

    def _wait(self, ticket: object, tell: Callable[[int], None]) -> None:
        while True:
            with self._moved:
                before = self._waiting.index(ticket)
            tell(before)
            if before == 0:
                return
            with self._moved:
                if self._waiting.index(ticket) == before:
                    self._moved.wait(_PATIENCE)
