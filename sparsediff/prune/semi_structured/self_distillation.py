"""What masks learn from: the same model without them, at random times of its own samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Level, noise_of, over
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.tdm_loss import guided
from sparsediff.distill.trajectory import roll_out
from sparsediff.kernels.errors import SparseError
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
        from sparsediff.distill.student.student_scheduler import student_scheduler
        from sparsediff.distill.training.setup import encoded

        model, before = _only_denoiser(pipe), pipe.scheduler
        if not prompts:
            raise SparseError("prompts is empty: masks learn from what the model makes of some.")
        recorder = ConditionRecorder(pipe, model, call or {}, steps=steps, guidance=guidance)
        try:
            pipe.scheduler = student_scheduler(before, steps, own_sigmas=recorder.own_sigmas)
            conditions = encoded(recorder, prompts)
        finally:
            pipe.scheduler = before
        levels = noise_of(recorder.scheduler)
        denoiser = Denoiser(model=model, inputs=recorder.inputs, levels=levels)
        grid = StepGrid.of(recorder.scheduler, levels)
        strength = 1.0 if recorder.guidance is None else recorder.guidance
        made = [
            _sample(denoiser, one, grid, strength, seed_of(settings.seed, "clean", number))
            for number, one in enumerate(conditions)
        ]
        return cls(
            denoiser=denoiser, conditions=conditions, clean=torch.cat(made), settings=settings
        )

    def prepare(self, iteration: int) -> NoisyBatch:
        """The noisy samples of an iteration, and what the model without masks gives for them."""
        settings, device = self.settings, _device(self.denoiser)
        first = iteration * settings.batch
        numbers = range(first, first + settings.batch)
        places = torch.tensor([self._place(number) for number in numbers])
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

    def _place(self, number: int) -> int:
        """The prompt of a sample: all prompts in one random order after another."""
        epoch, place = divmod(number, len(self.conditions))
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, "order", epoch))
        return int(torch.randperm(len(self.conditions), generator=generator)[place])


def _sample(
    denoiser: Denoiser, told: Conditions, grid: StepGrid, guidance: float, seed: int
) -> Tensor:
    """A clean sample ``[1, ...]`` of one prompt, on the CPU."""
    told = told.to(_device(denoiser))

    def denoise(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        positive = denoiser(x, level, told)
        if told.negative is None or guidance == 1.0:
            return positive
        negative = denoiser(x, level, told, negative=True)
        clean, noise = (
            guided(one, other, guidance) for one, other in zip(positive, negative, strict=True)
        )
        return clean, noise

    x = Draws([seed]).normal(torch.empty(1, *denoiser.inputs.shape, device=_device(denoiser)))
    return roll_out(denoise, denoiser.levels, grid, x)[-1].clean.float().cpu()


def _device(denoiser: Denoiser) -> torch.device:
    found: torch.device = next(denoiser.model.parameters()).device
    return found


def _only_denoiser(pipe: Any) -> nn.Module:
    from sparsediff.models import denoisers

    models = denoisers(pipe)
    if len(models) != 1:
        raise SparseError(
            f"{type(pipe).__name__} has {len(models)} denoising models ({', '.join(models)}); masks "
            f"are learnt for pipelines with one."
        )
    return next(iter(models.values()))
