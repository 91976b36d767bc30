"""Denoiser: a diffusers model, told in its own terms, as a function from noise to clean sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsediff.distill.noise import Level, Noise
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Denoiser:
    """``model`` (wrapped for several processes or not) with its way of being called."""

    model: Any
    inputs: Inputs
    levels: Noise

    def __call__(
        self, x: Tensor, level: Level, conditions: Conditions, *, negative: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Clean sample and noise that the model sees in x ``[b, ...]``, fp32."""
        return self.levels.split(x, self.output(x, level, conditions, negative=negative), level)

    def output(
        self, x: Tensor, level: Level, conditions: Conditions, *, negative: bool = False
    ) -> Tensor:
        """What the model gives for x ``[b, ...]``, of the same shape and as its scheduler gets it."""
        told = conditions.negative if negative else conditions.positive
        if told is None:
            raise SparseError("These conditions have no negative side; please report this.")
        arguments = {
            **told,
            self.inputs.noisy_name: x.to(self.inputs.dtype),
            self.inputs.time_name: self._timestep(level),
            "return_dict": False,
        }
        output = self.model(**arguments)[0]
        if output.ndim > 1 and output.shape[1] == 2 * x.shape[1]:
            output = output[:, : x.shape[1]]  # the other half is a learned variance
        if output.shape == x.shape[1:] and len(x) == 1:
            output = output[None]  # Kandinsky 5 gives one sample without a batch
        if output.shape != x.shape:
            raise SparseError(
                f"{type(self.model).__name__} turns {list(x.shape)} into {list(output.shape)}. "
                f"Training is for models whose input is the noise alone, from text to video or "
                f"image: it has no data for pictures to start from."
            )
        signed: Tensor = self.inputs.sign * output
        return signed

    def _timestep(self, level: Level) -> Tensor:
        """The timestep ``[b, *time_shape]`` in the model's own terms."""
        inputs = self.inputs
        told = level.timestep * inputs.time_scale + inputs.time_offset
        return told.view(-1, *[1] * len(inputs.time_shape)).expand(-1, *inputs.time_shape)
