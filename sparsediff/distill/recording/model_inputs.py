"""How a pipeline calls its model, read from its first two steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from sparsediff.distill.recording.conditions import Inputs
from sparsediff.distill.recording.first_steps import Call, FirstStep, FirstSteps
from sparsediff.distill.tdm_loss import guided
from sparsediff.kernels.errors import SparseError

_CLOCKS = ((1.0, 0.0), (1e-3, 0.0), (-1e-3, 1.0))  # model's timestep = scale t + offset
# bf16 rounds to 1 part in 256: far from this both ways. Scaled inputs differ by a factor.
_ROUNDING = 0.02


def only_call(who: str, step: FirstStep) -> Call:
    """The one call of a step without guidance; SparseError, naming pipeline `who`, for others."""
    if len(step.calls) != 1:
        raise SparseError(
            f"{who} calls its model {len(step.calls)} times a step without "
            f"guidance; training cannot tell the predictions apart."
        )
    return step.calls[0]


def inputs_of(who: str, first: FirstSteps, steps: Sequence[FirstStep]) -> Inputs:
    """How pipeline `who` calls its model, from two steps without guidance.

    Raises SparseError where a sample alone is not what the model sees, or its timesteps differ.
    """
    call = only_call(who, steps[0])
    _check_shape(who, steps[0], call)
    times = call.timestep
    flat = times.flatten()
    if not bool((flat == flat[0]).all()) or (times.ndim and len(times) != len(call.noisy)):
        raise SparseError(
            f"{who} gives its model timesteps {list(times.shape)} that "
            f"differ; training needs one for each sample."
        )
    scale, offset = _clock(who, steps)
    answer = _mean(call.answer, steps[0].output)
    return Inputs(
        shape=tuple(call.noisy.shape[1:]),
        noisy_name=first.noisy_name,
        time_name=first.time_name,
        time_scale=scale,
        time_offset=offset,
        time_shape=tuple(times.shape[1:]),
        sign=-1 if _near(steps[0].output, -answer) else 1,
        dtype=call.noisy.dtype,
    )


def _clock(who: str, steps: Sequence[FirstStep]) -> tuple[float, float]:
    """How the model's timestep follows from the scheduler's."""
    told = [float(only_call(who, step).timestep.flatten()[0]) for step in steps]
    for scale, offset in _CLOCKS:
        expected = [scale * step.time + offset for step in steps]
        if _near(torch.tensor(told), torch.tensor(expected)):
            return scale, offset
    raise SparseError(
        f"{who} tells its model timesteps {told} where its scheduler has "
        f"{[step.time for step in steps]}; training knows t, t / 1000 and 1 - t / 1000."
    )


def check_step(who: str, step: FirstStep, sign: int) -> None:
    """Raises SparseError unless the model sees the noise, and the scheduler its output times `sign`."""
    call = only_call(who, step)
    _check_shape(who, step, call)
    if not _near(call.noisy, step.sample):
        raise SparseError(
            f"{who} scales the noise before its model sees it, which training does not know."
        )
    if not _near(step.output, sign * _mean(call.answer, step.output)):
        raise SparseError(
            f"{who} changes what its model gives before its scheduler gets "
            f"it, beyond guidance; training does not know how."
        )


def check_guided(who: str, step: FirstStep, sign: int, scale: float) -> None:
    """Raise SparseError unless the scheduler gets two predictions, guided by `scale`, times `sign`."""
    answers = [_mean(call.answer, step.output) for call in step.calls]
    if len(answers) == 1 and len(answers[0]) == 2 * len(step.output):
        answers = list(answers[0].chunk(2))
    pairs = permutations(answers) if len(answers) == 2 else ()
    if not any(_near(step.output, sign * guided(one, other, scale)) for one, other in pairs):
        raise SparseError(
            f"{who} does not guide by negative + {scale:g} (positive - negative), which a student that "
            f"is run with guidance is trained with. Let it learn the guidance: student_guidance=1."
        )


def _check_shape(who: str, step: FirstStep, call: Call) -> None:
    if call.noisy.shape != step.sample.shape:
        raise SparseError(
            f"{who} gives its model {list(call.noisy.shape)} to step "
            f"{list(step.sample.shape)}. Training is for models whose input is the noise "
            f"alone, from text to video or image: it has no data for pictures to start from."
        )


def _mean(answer: Tensor, output: Tensor) -> Tensor:
    """The part of a model's output that is not the variance, where it gives one."""
    learned = answer.ndim > 1 and answer.shape[1] == 2 * output.shape[1]
    return answer[:, : output.shape[1]] if learned else answer


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether two are equal but for rounding."""
    if one.shape != other.shape:
        return False
    largest = other.float().abs().max()
    return bool((one.float() - other.float()).abs().max() <= _ROUNDING * largest)
