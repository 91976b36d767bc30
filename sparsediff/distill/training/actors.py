"""Actors: what each role sees in noisy samples of some prompts, as functions for an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.matching import Clean
from sparsediff.distill.noise import Level
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.tdm_loss import guided
from sparsediff.distill.training.roles import Role
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.trajectory import Denoise


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Actors:
    """The roles of a setup, told of the prompts in ``conditions``."""

    setup: Setup
    conditions: Conditions

    def student(self) -> Denoise:
        """Clean sample and noise as the student sees them, with the guidance that it is run with."""
        positive = self._denoise("student")
        scale = self.setup.student_guidance
        if scale == 1.0:
            return positive
        negative = self._denoise("student", negative=True)

        def denoise(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            # Both parts follow linearly from the output, so that each can be guided by itself.
            (clean, noise), (other_clean, other_noise) = positive(x, level), negative(x, level)
            return guided(clean, other_clean, scale), guided(noise, other_noise, scale)

        return denoise

    def fake(self) -> Clean:
        """The clean sample as the fake score sees it."""
        denoise = self._denoise("fake")
        return lambda x, level: denoise(x, level)[0]

    def teacher(self, *, guidance: float) -> Clean:
        """The clean sample as the teacher sees it, without gradients; 1 is without guidance."""

        @torch.no_grad()
        def clean(x: Tensor, level: Level) -> Tensor:
            positive = self._denoise("teacher")(x, level)[0]
            if guidance == 1.0 or self.conditions.negative is None:
                return positive
            negative = self._denoise("teacher", negative=True)(x, level)[0]
            return guided(positive, negative, guidance)

        return clean

    def _denoise(
        self, role: Role, *, negative: bool = False
    ) -> Callable[[Tensor, Level], tuple[Tensor, Tensor]]:
        def denoise(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            with self.setup.roles.playing(role) as model:
                denoiser = Denoiser(model=model, inputs=self.setup.inputs, levels=self.setup.levels)
                return denoiser(x, level, self.conditions, negative=negative)

        return denoise
