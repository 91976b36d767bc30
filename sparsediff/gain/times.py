"""AttentionTimes: what was measured of one case, and the file that keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from sparsediff.kernels.measured_file import MeasuredFile
from sparsediff.search.offline.cost_curves import Curve

_NUMBERS = ("dense_seconds", "dense_with_lse", "mass", "choice", "probe", "joined")

# Of the probe and the global tokens that are timed: one of so many tokens.
PROBED, JOINED = 4, 32


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionTimes:
    """Times of the kinds of calls, as shares of the user's dense call, which took ``dense_seconds``.

    ``sparse`` by density; ``dense_with_lse`` a dense call that also gives the log-sum-exp; ``mass`` one
    measurement of the block mass with every query, ``choice`` the choice of blocks from it; ``probe``
    the scores of every PROBED-th token of each block, ``joined`` one key more for every JOINED tokens
    of a sparse call. Raises ValueError for what is no time.
    """

    dense_seconds: float
    sparse: Curve
    dense_with_lse: float
    mass: float
    choice: float
    probe: float
    joined: float

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and isfinite(value) and value > 0):
                raise ValueError(f"{name}={value!r} is no time")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        plain = asdict(self)
        plain["sparse"] = [list(point) for point in self.sparse.points]
        return plain

    @classmethod
    def from_dict(cls, plain: Any) -> AttentionTimes:
        """The inverse of `to_dict`; ValueError or TypeError for anything else."""
        if not isinstance(plain, dict) or set(plain) != {*_NUMBERS, "sparse"}:
            raise ValueError(f"it has other fields than {', '.join(_NUMBERS)} and sparse")
        curve = Curve(points=tuple((density, share) for density, share in plain["sparse"]))
        return cls(sparse=curve, **{name: plain[name] for name in _NUMBERS})


FILE = MeasuredFile(
    name="gain.json",
    schema="sparsediff.gain/2",
    parse=AttentionTimes.from_dict,
    plain=AttentionTimes.to_dict,
    subject="times of dense and sparse attention",
)
