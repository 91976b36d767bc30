"""Recipes: which clips are trained on in which order, and at which learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of training step.

    `frames` latent frames (2 * frames - 1 video frames); `half`
    renders and then averages 2 x 2 pixels, so that motion is learned at a quarter of the tokens;
    `picked` trains on that many of the latent frames only, the first and random others, at their
    true times (0: on all), so that far frames are joined at the price of a short clip.
    `shift` moves the noise levels up; more tokens need more noise to hide as much.
    `compiled` marks kinds whose step torch.compile makes faster (few tokens, little attention).
    """

    frames: int
    batch: int
    shift: float
    half: bool = False
    picked: int = 0
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.frames % 2 == 0:
            raise ValueError(
                f"Found frames={self.frames}; needed an odd number: the autoencoder takes the first "
                f"video frame and then four at a time, which make two latent frames."
            )
        if not 0 <= self.picked <= self.frames:
            raise ValueError(f"Found picked={self.picked}; needed 0..{self.frames} frames.")


KINDS = {
    "image": Kind(frames=1, batch=16, shift=1.5, compiled=True),
    "half": Kind(frames=9, batch=8, shift=2.0, half=True, compiled=True),
    "half-picked": Kind(frames=9, batch=24, shift=1.8, half=True, picked=4, compiled=True),
    "picked": Kind(frames=9, batch=8, shift=2.2, picked=3),
    "full": Kind(frames=9, batch=3, shift=3.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """`steps` steps whose kinds are drawn with the probabilities of `mix`."""

    steps: int
    mix: dict[str, float]

    def __post_init__(self) -> None:
        if unknown := set(self.mix) - set(KINDS):
            raise ValueError(f"Found the kinds {sorted(unknown)}; needed some of {sorted(KINDS)}.")
        if self.steps < 1 or not math.isclose(sum(self.mix.values()), 1.0):
            raise ValueError(f"Found {self}; needed steps >= 1 and shares that sum to 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole run; the learning rates rise over `warm_up` steps and fall over the last `decay`.

    `average` is the largest weight of the past in the averaged weights, which are the published
    ones; `drop_caption` the share of empty captions, which guidance needs; clips are used for
    `uses` steps in a row where the kind of step stays the same (each time with other noise).
    """

    phases: tuple[Phase, ...]
    muon_rate: float = 1.5e-3
    adamw_rate: float = 1e-3
    warm_up: int = 40
    decay: float = 0.5
    average: float = 0.99
    drop_caption: float = 0.1
    uses: int = 2

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def mix_at(self, step: int) -> dict[str, float]:
        """Shares of the kinds at a step; the last phase goes on for ever."""
        for phase in self.phases:
            if step < phase.steps:
                return phase.mix
            step -= phase.steps
        return self.phases[-1].mix

    def scale_at(self, step: int) -> float:
        """Factor of both learning rates: a linear warm-up, a plateau, a cosine down to 2 %."""
        late = 1.0 - (1.0 - step / self.steps) / self.decay
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(late, 0.0), 1.0)))
        return min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * cosine)


# Shapes are learned from single frames, motion from few frames and at half size, and only the rest
# at full price.
CONTINUE = Recipe(
    phases=(
        Phase(steps=600, mix={"half-picked": 0.45, "picked": 0.3, "half": 0.15, "image": 0.1}),
        Phase(
            steps=500,
            mix={"picked": 0.45, "half-picked": 0.2, "half": 0.15, "full": 0.15, "image": 0.05},
        ),
        Phase(steps=400, mix={"full": 0.5, "picked": 0.4, "image": 0.1}),
    ),
)
WHOLE = Recipe(
    phases=(
        Phase(steps=1200, mix={"image": 1.0}),
        Phase(steps=1500, mix={"half-picked": 0.45, "half": 0.25, "image": 0.2, "picked": 0.1}),
        *CONTINUE.phases,
    ),
)
RECIPES = {"continue": CONTINUE, "whole": WHOLE}
