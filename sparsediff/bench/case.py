"""What a benchmark measures and what it found: one shape of self-attention, one row per kernel."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sparsediff.kernels import SparseError

# Largest error against the reference, as a share of the largest number: score rounding in float32,
# one rounding of weights and of the output in the others. A wrong block is a hundred times that.
ERROR_LIMIT = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchCase:
    """What is measured: self-attention of one shape.

    ``batch`` x ``heads`` x ``tokens`` x ``dim`` of ``dtype`` on ``device``, in blocks of ``block``
    tokens; ``repeat`` timed rounds, fewer for a kernel that takes seconds. Raises SparseError when
    a number is not positive.
    """

    batch: int = 1
    heads: int = 8
    tokens: int = 4096
    dim: int = 64
    block: int = 64
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    repeat: int = 7

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.tokens, self.dim, self.block, self.repeat)
        if min(sizes) < 1:
            raise SparseError(f"{self}: every size and the number of rounds must be at least 1.")
        if self.dtype not in ERROR_LIMIT:
            known = ", ".join(str(x).removeprefix("torch.") for x in ERROR_LIMIT)
            raise SparseError(f"{self.dtype} is not measured; choose one of {known}.")

    @classmethod
    def parse(cls, shape: str, **others: Any) -> BenchCase:
        """From "batch x heads x tokens x dim", such as "1x8x4096x64"."""
        try:
            batch, heads, tokens, dim = (int(part) for part in shape.split("x"))
        except ValueError:
            raise SparseError(
                f"shape {shape!r} is not batch x heads x tokens x dim; give it like 1x8x4096x64."
            ) from None
        return cls(batch=batch, heads=heads, tokens=tokens, dim=dim, **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One kernel at one density.

    ``seconds`` of each round; ``ratios`` to the dense run timed just before; ``error`` the largest
    against the reference as a share of its largest number, ``limit`` what it may be.
    """

    kernel: str
    density: float
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    error: float
    limit: float

    @property
    def match(self) -> bool:
        """Whether the kernel computed what the reference computes."""
        return self.error <= self.limit

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float:
        """Range of the middle half of the times, in seconds; 0 for fewer than two rounds."""
        return spread(self.seconds)

    @property
    def ratio(self) -> float | None:
        """Median time in units of dense attention; None where the results are wrong."""
        return statistics.median(self.ratios) if self.match else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        named = {"median": self.median, "iqr": self.iqr, "ratio": self.ratio, "match": self.match}
        return {**asdict(self), **named}


def spread(values: Sequence[float]) -> float:
    """Interquartile range."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low
