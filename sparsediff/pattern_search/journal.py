"""Journal: what a search has finished, one line of JSON each, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One finished unit: a pass over one prompt.

    ``stage`` name of the pass; ``prompt`` its number; ``sha256`` of the unit's file; ``seconds`` it
    took, which only the time left is estimated from. Raises SparseError for values of other kinds.
    """

    stage: str
    prompt: int
    sha256: str
    seconds: float

    def __post_init__(self) -> None:
        right = (
            isinstance(self.stage, str)
            and re.fullmatch(r"[a-z0-9.-]+", self.stage) is not None
            and type(self.prompt) is int
            and self.prompt >= 0
            and isinstance(self.sha256, str)
            and isinstance(self.seconds, int | float)
        )
        if not right:
            raise SparseError(f"{self!r} is no entry of a journal.")


class Journal:
    """The entries in a file that several processes may append to.

    A line that a crash left half-written at the end of the file does not count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Every entry; raises SparseError for a line, other than a torn last one, that is none."""
        return _parsed(self.path)[0]

    def append(self, entry: Entry) -> None:
        """Add one entry; when this returns, it is on the disk."""
        line = json.dumps(asdict(entry), allow_nan=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def mend(self) -> None:
        """Cut off a torn last line, so that the next entry begins a line; call it before any append."""
        if self.path.exists():
            length = _parsed(self.path)[1]
            if length != self.path.stat().st_size:
                os.truncate(self.path, length)


def _parsed(path: Path) -> tuple[list[Entry], int]:
    """The entries, and the length in bytes of the part of the file that holds them."""
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    entries: list[Entry] = []
    length = 0
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None:
            if number == len(lines):
                break
            raise SparseError(
                f"{path}: line {number} is not an entry of this journal. Restore the file, or search "
                f"again in another folder."
            )
        entries.append(entry)
        length += len(line)
    return entries, length


def _entry(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values: Any = json.loads(line)
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(Entry)}:
            return None
        return Entry(**values)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, SparseError):
        return None
