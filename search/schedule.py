"""Schedule: which denoising steps and layers stay dense, and when to search again."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Where a call lies in the denoising run.

    ``index`` counts from 0; ``total`` is the number of steps, or None when nobody knows (a bare model
    called by hand). ``progress`` in [0, 1] is the share of the run done before this step: index /
    total, or the share of the noise removed when the total is unknown.
    """

    index: int
    total: int | None = None
    progress: float = 0.0


def _nearest(value: float) -> int:
    return floor(value + 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Dense steps, dense layers and search marks, as shares of the run (AdaSpa §1.3, T_s).

    ``warmup`` share of the steps at the start that run dense (rounded, at least one unless 0);
    ``refresh`` shares at which a pattern is searched again, with the step that ends there: 0.6 of 50
    steps is the 30th. ``dense_layers`` first layers of each model stay dense throughout.

    A refresh mark inside the warm-up changes nothing. Raises SparseError for a share out of range.
    """

    warmup: float = 0.2
    refresh: tuple[float, ...] = ()
    dense_layers: int = 0

    def __post_init__(self) -> None:
        if not _is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise SparseError(
                f"warmup={self.warmup!r}: needs a share of the steps in [0, 1); 0.2 runs the first "
                f"fifth dense."
            )
        if not isinstance(self.refresh, tuple) or not all(
            _is_number(share) and 0 < share < 1 for share in self.refresh
        ):
            raise SparseError(
                f"refresh={self.refresh!r}: needs a tuple of shares of the steps in (0, 1), for "
                f"example (0.6,), or () for none."
            )
        layers = self.dense_layers
        if not isinstance(layers, int) or isinstance(layers, bool) or layers < 0:
            raise SparseError(f"dense_layers={layers!r}: needs a whole number >= 0.")

    def dense_steps(self, total: int) -> int:
        """How many of `total` steps run dense at the start."""
        return max(1, _nearest(self.warmup * total)) if self.warmup > 0 else 0

    def is_dense(self, step: Step, depth: int) -> bool:
        """Whether the layer at `depth` in its model runs dense at this step."""
        if depth < self.dense_layers:
            return True
        if step.total is None:
            return step.progress < self.warmup
        return step.index < self.dense_steps(step.total)

    def is_last_dense(self, step: Step) -> bool:
        """Whether the next step is the first sparse one (unknown without a total: False)."""
        return step.total is not None and step.index == self.dense_steps(step.total) - 1

    def marks(self, step: Step) -> int:
        """How many refresh marks this step has reached; search again when it grows."""
        if step.total is None:
            return sum(step.progress >= share for share in self.refresh)
        total = step.total
        return sum(step.index >= _nearest(share * total) - 1 for share in self.refresh)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
