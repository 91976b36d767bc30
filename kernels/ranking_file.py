"""The file that keeps what was measured: one per machine and user, read and replaced as a whole.

It may be missing, broken, read-only or written by several processes at once; none of that fails a call.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.kernels.cpu.build import cache_folder

logger = logging.getLogger("sparsediff.kernels")

SCHEMA = "sparsediff.ranking/1"
NAME = "ranking.json"
# Beyond it the entries written first, of versions long gone, are dropped.
MAX_ENTRIES = 512
# A backend later in the fixed order passes an earlier one only if it is clearly faster, not by noise.
MARGIN = 1.1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rank:
    """What was measured for one kind of call.

    ``seconds`` per call of each backend that ran and was right; ``failures``: why others were left out.
    Raises ValueError for times that are not positive finite numbers and reasons that are not text.
    """

    seconds: dict[str, float]
    failures: dict[str, str]

    def __post_init__(self) -> None:
        for name, value in self.seconds.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (isinstance(name, str) and number and math.isfinite(value) and value > 0):
                raise ValueError(f"{value!r} seconds of {name!r} is no time")
        for name, reason in self.failures.items():
            if not (isinstance(name, str) and isinstance(reason, str)):
                raise ValueError(f"{reason!r} is no reason for {name!r}")

    def order(self, names: Sequence[str]) -> list[str]:
        """The names, fastest first, then those not measured as they were; without those that failed."""
        left = [name for name in names if name in self.seconds]
        ordered = []
        while left:
            limit = MARGIN * min(self.seconds[name] for name in left)
            ordered.append(next(name for name in left if self.seconds[name] <= limit))
            left.remove(ordered[-1])
        known = {*self.seconds, *self.failures}
        return ordered + [name for name in names if name not in known]


def path() -> Path:
    """Where the ranking is kept: beside the compiled CPU kernels."""
    return cache_folder() / NAME


def load() -> dict[str, Rank]:
    """Every entry of the file, by its key; empty, with one warning, if the file is not as written."""
    try:
        return _entries(json.loads(path().read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        _warn_once(f"{path()} is not read ({error}); backends are measured again")
        return {}


def save(key: str, rank: Rank, *, replace: bool) -> Rank:
    """Add an entry and return it; without `replace` one that is there already is returned instead.

    One warning if the file cannot be written.
    """
    entries = load()
    if key in entries and not replace:
        return entries[key]
    entries.pop(key, None)  # the entry written last stands last
    entries[key] = rank
    kept = list(entries.items())[-MAX_ENTRIES:]
    document = {
        "schema": SCHEMA,
        "entries": {k: {"seconds": r.seconds, "failures": r.failures} for k, r in kept},
    }
    try:
        _replace(path(), json.dumps(document, indent=1))
    except OSError as error:
        _warn_once(f"{path()} is not written ({error}); every process measures anew")
    return rank


def _entries(document: Any) -> dict[str, Rank]:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"it is not {SCHEMA}")
    entries = document.get("entries")
    if not isinstance(entries, dict):
        raise ValueError("it has no entries")
    found = {}
    for key, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"seconds", "failures"}:
            raise ValueError(f"entry {key!r} has other fields")
        if not all(isinstance(value, dict) for value in entry.values()):
            raise ValueError(f"entry {key!r} holds no tables")
        found[key] = Rank(seconds=entry["seconds"], failures=entry["failures"])
    return found


def _replace(target: Path, text: str) -> None:
    """Write beside the file, then move over it: other processes see the old or the new, whole."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{NAME}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).replace(target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
