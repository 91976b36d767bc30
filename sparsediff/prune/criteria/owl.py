"""OWL (arXiv 2310.05175): layers with more outlying weights keep more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.calibration import StepWeights
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.criteria.magnitude import Magnitude
from sparsediff.prune.criteria.wanda import Wanda
from sparsediff.prune.criteria.weight_criterion import WeightCriterion
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import KINDS
from sparsediff.prune.subject import Subject

Base = Literal["magnitude", "wanda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OWL(Criterion):
    """Scores of ``base``, and for every layer how much more than the others it should keep.

    ``outlier``: a weight is one that has more than so many times its layer's mean of the base's
    metric; ``spread``: layers keep up to so much more or less than the mean share. Defaults as in the
    study of Stable Diffusion 2 (arXiv 2411.15113). Kinds are on their own. ``step_weights`` is for
    wanda.
    """

    name: ClassVar[str] = "owl"
    moves_shares: ClassVar[bool] = True

    base: Base = "wanda"
    outlier: float = 7.0
    spread: float = 0.08
    step_weights: StepWeights = "even"

    def __post_init__(self) -> None:
        if self.base not in get_args(Base):
            raise SparseError(f"base={self.base!r}: needs one of {', '.join(get_args(Base))}.")
        check_owl(self.outlier, self.spread)
        self._base()  # checks the rest

    @property
    def needs_prompts(self) -> bool:
        """As its base."""
        return self._base().needs_prompts

    def _base(self) -> WeightCriterion:
        wanda = Wanda(step_weights=self.step_weights)
        return wanda if self.base == "wanda" else Magnitude()

    @torch.no_grad()
    def scores(self, subject: Subject) -> Scores:
        """The base's scores with shifts."""
        base, model = self._base(), subject.model
        inputs = base.inputs(subject)
        values: dict[str, Tensor] = {}
        outliers: dict[str, float] = {}
        for one in subject.structures:
            values[one.key] = base.unit_scores(model, one, inputs)
            outliers[one.key] = outlier_share(base.metric(model, one, inputs), self.outlier)
        shifts: dict[str, float] = {}
        for kind in KINDS:
            those = [one for one in subject.structures if one.kind == kind]
            found = density_shifts(
                [outliers[one.key] for one in those], [one.units for one in those], self.spread
            )
            shifts |= dict(zip((one.key for one in those), found, strict=True))
        return Scores(values=values, shifts=shifts)


def outlier_share(metric: Tensor, outlier: float) -> float:
    """Share of the values that are more than `outlier` times their mean."""
    return float((metric > outlier * metric.mean()).float().mean())


def density_shifts(outliers: Sequence[float], sizes: Sequence[int], spread: float) -> list[float]:
    """By how much each layer's density differs from the mean, within 2 * `spread` of each other.

    Outlier shares are stretched to ``2 * spread`` and moved so that their mean, weighted by `sizes`, is
    0: what is asked for in all is what is given up. (The study's mean is over layers of one size.)
    """
    if not outliers or max(outliers) == min(outliers):
        return [0.0] * len(outliers)
    low, high = min(outliers), max(outliers)
    stretched = [(share - low) / (high - low) * 2 * spread for share in outliers]
    mean = sum(s * n for s, n in zip(stretched, sizes, strict=True)) / sum(sizes)
    return [s - mean for s in stretched]


def check_owl(outlier: float, spread: float) -> None:
    """Raises SparseError for values out of range."""
    if not outlier > 0:
        raise SparseError(f"outlier={outlier!r}: needs a number > 0; the study has 7.")
    if not 0 <= spread <= 0.5:
        raise SparseError(f"spread={spread!r}: needs a share in [0, 0.5]; the study has 0.08.")
