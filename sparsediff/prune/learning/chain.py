"""Chain: a pipeline's whole denoising run as one differentiable function of its starting noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import FlowNoise, Level, Noise, noise_of
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.sample_chain import sample_chain
from sparsediff.distill.student.scheduler_kinds import is_flow
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.tdm_loss import guided
from sparsediff.distill.training.setup import encoded
from sparsediff.distill.trajectory import Denoise
from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chain:
    """``model`` as its pipeline calls it, guidance and all, over all steps of ``grid``.

    Every step is of first order (Euler for flow matching, DDIM otherwise), a function of the latents
    and two times: no scheduler is called and no state of one is carried from step to step, so that a
    step computed again is the same. Of a multistep scheduler only the noise levels are used.
    ``latents_every``: see `sample_chain`.
    """

    model: nn.Module
    inputs: Inputs
    levels: Noise
    grid: StepGrid
    guidance: float
    latents_every: int = 1

    def latents(self, x: Tensor, conditions: Conditions, *, keep: bool = False) -> Tensor:
        """Final latents ``[b, ...]`` fp32 from noise `x`; `keep` keeps all activations."""
        denoise = self._denoise(conditions)
        return sample_chain(denoise, self.levels, self.grid, x, keep=keep, every=self.latents_every)

    def _denoise(self, conditions: Conditions) -> Denoise:
        denoiser = Denoiser(model=self.model, inputs=self.inputs, levels=self.levels)

        def denoise(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            output = denoiser.output(x, level, conditions).float()
            if conditions.negative is not None and self.guidance != 1.0:
                negative = denoiser.output(x, level, conditions, negative=True).float()
                output = guided(output, negative, self.guidance)
            return self.levels.split(x, output, level)

        return denoise


def chain_of(
    pipe: Any,
    model: nn.Module,
    prompts: Sequence[str | Conditions],
    *,
    call: Mapping[str, Any],
    steps: int,
    guidance: float | None = None,
    latents_every: int = 1,
) -> tuple[Chain, list[Conditions]]:
    """The chain of a pipeline that is called with `call`, and what its model is told of the prompts.

    Flow matching visits the pipeline's own noise levels; others trailing ones, from pure noise. The
    pipeline keeps its scheduler. Raises SparseError where the chain would not be the pipeline's run.
    """
    recorder = ConditionRecorder(pipe, model, call, steps=steps, guidance=guidance)
    before = pipe.scheduler
    try:
        if not is_flow(before):
            # Of one step, which every table divides: only its noise levels are asked for.
            pipe.scheduler = student_scheduler(before, 1)
        conditions = encoded(recorder, prompts)
    except SparseError as error:
        raise SparseError(f"Masks cannot be learnt on this chain of steps: {error}") from error
    finally:
        pipe.scheduler = before
    levels = noise_of(recorder.scheduler)
    chain = Chain(
        model=model,
        inputs=recorder.inputs,
        levels=levels,
        grid=_grid(recorder.scheduler, levels),
        guidance=1.0 if recorder.guidance is None else recorder.guidance,
        latents_every=latents_every,
    )
    return chain, conditions


def _grid(scheduler: Any, levels: Noise) -> StepGrid:
    """The levels that a scheduler visits, as steps from each to the next.

    A table's need not be evenly apart: nothing here steps by a fixed number of training steps.
    """
    if isinstance(levels, FlowNoise):
        return StepGrid.of(scheduler, levels)
    return StepGrid(times=(*(float(time) + 1 for time in scheduler.timesteps), 0.0))


def distance(latents: Tensor, wanted: Tensor, kind: str) -> Tensor:
    """How far final latents ``[b, ...]`` are from others, a scalar: mean over the samples.

    "mse": mean of squares; "rms": its root for each sample, EcoDiff's norm over the root of the number
    of elements, whose gradient does not fade where the two are close.
    """
    squares = (latents - wanted).square().flatten(1).mean(dim=1)
    if kind == "rms":  # at 0 the root has no gradient, and none is needed
        squares = squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
    return squares.mean()
