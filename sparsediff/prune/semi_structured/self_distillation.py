"""What masks learn from: the same model without them, at random times of its own samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of, shuffled_place
from sparsediff.distill.noise import Level, over
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.evaluation import own_samples
from sparsediff.prune.learning.chain import chain_of
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.semi_structured.mask_settings import MaskSettings

# Times stay this share clear of both ends, where a model's output says nothing or diverges.
_EDGE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NoisyBatch:
    """Noisy samples ``x`` ``[b, ...]`` at ``level``, and the ``taught`` output without masks."""

    x: Tensor
    level: Level
    conditions: Conditions
    negative: bool
    taught: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SelfDistillation:
    """Mean squared difference from the unmasked model's output, over that output's mean square.

    ``clean`` ``[n, ...]`` fp32 on the CPU: a sample for each of ``conditions``. Every iteration noises
    some of them to random times, and tells the model of the prompt or, half of the time where the
    pipeline has guidance, of the negative one. All of it follows from the seed and the number of the
    sample in the training.
    """

    denoiser: Denoiser
    conditions: Sequence[Conditions]
    clean: Tensor
    settings: MaskSettings

    @classmethod
    def of(
        cls,
        pipe: Any,
        prompts: Sequence[str | Conditions],
        settings: MaskSettings,
        *,
        call: Mapping[str, Any] | None = None,
        steps: int = 20,
        guidance: float | None = None,
    ) -> SelfDistillation:
        """Record what the pipeline tells its model of prompts, and let it make a sample of each.

        ``call``: arguments of the pipeline, which say the size; ``steps`` and ``guidance`` of the
        samples. The pipeline is left as it was. Raises SparseError where its conditions cannot be
        recorded.
        """
        if not prompts:
            raise SparseError("prompts is empty: masks learn from what the model makes of some.")
        _, model = prunable_model(pipe)
        chain, told = chain_of(
            pipe, model, prompts, call=call or {}, steps=steps, guidance=guidance
        )
        denoiser = Denoiser(model=model, inputs=chain.inputs, levels=chain.levels)
        here = [one.to(_device(denoiser)) for one in told]
        made = own_samples(denoiser, here, chain.grid, guidance=chain.guidance, seed=settings.seed)
        return cls(denoiser=denoiser, conditions=told, clean=made.cpu(), settings=settings)

    def prepare(self, iteration: int) -> NoisyBatch:
        """The noisy samples of an iteration, and what the model without masks gives for them."""
        settings, device = self.settings, _device(self.denoiser)
        first = iteration * settings.batch
        numbers = range(first, first + settings.batch)
        count = len(self.conditions)
        places = torch.tensor([shuffled_place(settings.seed, n, count) for n in numbers])
        draws = Draws([seed_of(settings.seed, "lesson", number) for number in numbers])
        told = Conditions.stack([self.conditions[int(place)] for place in places]).to(device)
        clean = self.clean[places].to(device)
        share = _EDGE + (1 - 2 * _EDGE) * draws.uniform(device)
        level = self.denoiser.levels.at(share * self.denoiser.levels.steps)
        noise = draws.normal(clean)
        x = over(level.alpha, clean) * clean + over(level.sigma, clean) * noise
        negative = told.negative is not None and bool(draws.uniform()[0] < 0.5)
        taught = self.denoiser.output(x, level, told, negative=negative).float()
        return NoisyBatch(x=x, level=level, conditions=told, negative=negative, taught=taught)

    def loss(self, part: NoisyBatch) -> Tensor:
        """How far the model is from what it gave without masks: 0 for equal, about 1 for nothing."""
        given = self.denoiser.output(part.x, part.level, part.conditions, negative=part.negative)
        size = part.taught.square().mean().clamp_min(1e-12)
        return (given.float() - part.taught).square().mean() / size


def _device(denoiser: Denoiser) -> torch.device:
    found: torch.device = next(denoiser.model.parameters()).device
    return found
