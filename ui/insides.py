"""Insides: what was last looked into, kept in memory for the pages that show it."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from sparsediff.inside import Inside
from sparsediff.ui.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """One run's inside: its ``settings``, what it wrote on its way, and the head that is shown.

    ``token`` is a name that nobody can guess; who knows it may look.
    """

    settings: Settings
    inside: Inside
    log: tuple[str, ...] = ()
    head: tuple[int, int] = (0, 0)  # layer and head
    token: str = field(default_factory=lambda: secrets.token_hex(16))


class Insides:
    """Those opened last, as many as fit into `most_bytes` of memory, at least one."""

    def __init__(self, *, most_bytes: int = 256 * 2**20) -> None:
        self.most_bytes = most_bytes
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, opened: Opened) -> Opened:
        """Keep one; those that nobody looked into for longest make room."""
        with self._lock:
            self._opened[opened.token] = opened
            while len(self._opened) > 1 and self._bytes > self.most_bytes:
                self._opened.popitem(last=False)
        return opened

    def get(self, token: object) -> Opened | None:
        """What was opened under a token, if it is still there."""
        with self._lock:
            found = self._opened.get(str(token))
            if found is not None:
                self._opened.move_to_end(found.token)
        return found

    @property
    def _bytes(self) -> int:
        return sum(opened.inside.bytes for opened in self._opened.values())
