"""MaskConfig: the shape of MaskUNet's generators, and how masks are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.values import number, one_of, whole
from sparsediff.prune.mask_unet.drawn_mask import NOISES, MaskNoise


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskConfig:
    """``factor``: by how much a block's map is smaller than its channels; ``hidden`` of the generator.

    ``opening``: the logit of every weight at the start; ``temperature`` and ``noise`` in training, see
    `drawn_mask`. ``start``: "trainable" begins with logits that are the opening whatever generators
    say, but follow them from the second update on. "release" begins with zeros as published: map and
    adapter then multiply zeros, whose gradients are zero for good, and masks never come to depend on
    timestep or sample; for comparisons only.

    Raises SparseError for a value out of range.
    """

    factor: int = 4
    hidden: int = 64
    opening: float = 5.0
    temperature: float = 1.0
    noise: MaskNoise = "logistic"
    start: Literal["trainable", "release"] = "trainable"

    def __post_init__(self) -> None:
        check(self, MASK_CONFIG)


MASK_CONFIG: dict[str, Reader[Any]] = {
    "factor": whole(1, 1024),
    "hidden": whole(1, 2**16),
    "opening": number(-100, 100),
    "temperature": number(0, 1000, above=True),
    "noise": one_of(*NOISES),
    "start": one_of("trainable", "release"),
}
