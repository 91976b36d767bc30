"""Patterns: the modes of Sparse-vDiT (arXiv 2506.03065 §2.1), fitted to a head, in units of a grid.

Full and Skip, the remaining two, are those of `kernels.block_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import ClassVar

from sparsediff.kernels.block_rules import Full, Skip
from sparsediff.kernels.errors import SparseError

__all__ = ["MODES", "Diagonal", "Full", "MultiDiagonal", "Online", "Pattern", "Skip", "Stripe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagonal:
    """Keys at most ``half_width`` periods before or behind the query, in the order of the sequence.

    A period is a frame; in an image a row. Raises SparseError for a width that is not a number >= 0.
    """

    mode: ClassVar[str] = "diagonal"

    half_width: float

    def __post_init__(self) -> None:
        _check_width(self.half_width, "Diagonal.half_width")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiDiagonal:
    """Keys near the query's own place, in its own period and in others.

    ``half_widths``: how far around the place, in periods, at a distance of 0, 1, 2, ... periods; with
    ``everywhere`` the last one holds for all greater distances, otherwise those are left out.
    ``by_place``: computed with the tokens reordered so that one place's periods lie side by side, as
    one window; needs one width and ``everywhere``.

    Raises SparseError without widths, for a width that is not a number >= 0, for `by_place` otherwise.
    """

    mode: ClassVar[str] = "multi-diagonal"

    half_widths: tuple[float, ...]
    everywhere: bool = False
    by_place: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.half_widths, tuple) or not self.half_widths:
            raise SparseError(
                f"MultiDiagonal.half_widths={self.half_widths!r}: needs a tuple of at least one width."
            )
        for place, width in enumerate(self.half_widths):
            _check_width(width, f"MultiDiagonal.half_widths[{place}]")
        if self.by_place and not (self.everywhere and len(self.half_widths) == 1):
            raise SparseError(
                "MultiDiagonal.by_place=True: needs one width and everywhere=True, because the "
                "reordered window has the same width at every distance."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stripe:
    """The same key blocks for every query: ``columns``, their numbers, ascending.

    The numbers belong to one grid and block size and are never carried over to another. Raises
    SparseError unless they are ascending whole numbers >= 0, at least one.
    """

    mode: ClassVar[str] = "stripe"

    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        found = self.columns
        if not isinstance(found, tuple) or not found or any(type(n) is not int for n in found):
            raise SparseError("Stripe.columns: needs a tuple of at least one block number.")
        if found[0] < 0 or any(b <= a for a, b in pairwise(found)):
            raise SparseError("Stripe.columns: needs ascending, distinct block numbers >= 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Online:
    """No fixed pattern: the head's blocks are searched while generating, as AdaSpa does.

    ``density`` share of the video's key blocks that every row keeps, in (0, 1]. Not of the Sparse-vDiT
    paper: the plan is then the prior and AdaSpa the arbiter.
    """

    mode: ClassVar[str] = "online"

    density: float

    def __post_init__(self) -> None:
        if not _is_number(self.density) or not 0 < self.density <= 1:
            raise SparseError(f"Online.density={self.density!r}: needs a share in (0, 1].")


Pattern = Full | Skip | Diagonal | MultiDiagonal | Stripe | Online

MODES: dict[type, str] = {
    Full: "full",
    Skip: "skip",
    Diagonal: "diagonal",
    MultiDiagonal: "multi-diagonal",
    Stripe: "stripe",
    Online: "online",
}


def _check_width(value: object, name: str) -> None:
    if not _is_number(value) or not value >= 0:  # type: ignore[operator]
        raise SparseError(f"{name}={value!r}: needs a number >= 0, in periods of the grid.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
