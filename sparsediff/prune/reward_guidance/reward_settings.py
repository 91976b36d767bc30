"""RewardSettings: how often masks are tried at each denoising step, and which try counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.values import number, one_of, whole
from sparsediff.prune.mask_unet.drawn_mask import NOISES, MaskNoise


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSettings:
    """``early_tries`` at each of the first ``early_steps`` steps, ``tries`` at each later one.

    ``start``: every weight's logit when a step begins, 93.4 % of weights open, as the release has it
    with its one Gumbel at 1.0; ``noise`` and ``temperature`` of `drawn_mask`. ``keep``: "best" goes on
    from each image's best try, or from the plain step where no try is better; "last" from the last
    try, as released, whatever it is. ``seed`` of the masks; the pipeline draws what it always does.

    Raises SparseError for a value out of range.
    """

    tries: int = 10
    early_tries: int = 1
    early_steps: int = 6
    learning_rate: float = 1e-2
    start: float = 2.65
    noise: MaskNoise = "logistic"
    temperature: float = 1.0
    keep: Literal["best", "last"] = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, _SETTINGS)

    def tries_at(self, step: int) -> int:
        """How many tries a step has, counted from 0."""
        return self.early_tries if step < self.early_steps else self.tries


_SETTINGS: dict[str, Reader[Any]] = {
    "tries": whole(0, 10**4),
    "early_tries": whole(0, 10**4),
    "early_steps": whole(0, 10**6),
    "learning_rate": number(0, 100, above=True),
    "start": number(-100, 100),
    "noise": one_of(*NOISES),
    "temperature": number(0, 1000, above=True),
    "keep": one_of("best", "last"),
    "seed": whole(0, 2**53),
}
