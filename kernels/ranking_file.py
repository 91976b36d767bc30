"""The ranking: which backend was how fast on this machine, in one file per machine and user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.kernels.measured_file import MeasuredFile

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


def _parse(entry: Any) -> Rank:
    if not isinstance(entry, dict) or set(entry) != {"seconds", "failures"}:
        raise ValueError("it has other fields")
    if not all(isinstance(value, dict) for value in entry.values()):
        raise ValueError("it holds no tables")
    return Rank(seconds=entry["seconds"], failures=entry["failures"])


def _plain(rank: Rank) -> dict[str, Any]:
    return {"seconds": rank.seconds, "failures": rank.failures}


_FILE = MeasuredFile(
    name="ranking.json",
    schema="sparsediff.ranking/1",
    parse=_parse,
    plain=_plain,
    subject="backends",
)


def path() -> Path:
    """Where the ranking is kept: beside the compiled CPU kernels."""
    return _FILE.path


def load() -> dict[str, Rank]:
    """Every entry of the file, by its key; see `MeasuredFile.load`."""
    return _FILE.load()


def save(key: str, rank: Rank, *, replace: bool) -> Rank:
    """Keep an entry; see `MeasuredFile.save`."""
    return _FILE.save(key, rank, replace=replace)
