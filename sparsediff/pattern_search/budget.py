"""Budget: what a user allows a plan to cost, or asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from sparsediff.kernels.errors import SparseError

KINDS = ("density", "psnr", "speedup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """``kind`` and ``value`` of a budget.

    "density": the share of all block pairs that sparse calls compute on average, in (0, 1];
    "psnr": dB against the dense videos of the calibration prompts, at least; "speedup": how many times
    faster than dense the denoising loop is on this device, at least 1. Raises SparseError otherwise.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SparseError(f"budget {self.kind!r}: needs one of {', '.join(KINDS)}.")
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise SparseError(f"{self.kind}={value!r}: needs a number.")
        object.__setattr__(self, "value", float(value))
        if self.kind == "density" and not 0 < value <= 1:
            raise SparseError(
                f"density={value!r}: needs the share of blocks to compute, in (0, 1]."
            )
        if self.kind == "psnr" and not value > 0:
            raise SparseError(f"psnr={value!r}: needs decibels above 0, such as 30.")
        if self.kind == "speedup" and not value >= 1:
            raise SparseError(f"speedup={value!r}: needs a factor of at least 1, such as 1.5.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"kind": self.kind, "value": self.value}

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"
