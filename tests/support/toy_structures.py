"""A toy model with two feed-forwards, as a pipeline runs it, and its structures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.prune.structures import Cut, Structure
from sparsediff.prune.subject import Subject


class ToyModel(nn.Module):
    """``layers`` of up (without activation: inputs of `down` are known) and down, 2 features wide."""

    def __init__(self, *, layers: int = 2, units: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.ModuleList(nn.Linear(2, units, bias=False) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(units, 2) for _ in range(layers))

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> Tensor:
        for up, down in zip(self.up, self.down, strict=True):
            hidden_states = down(up(hidden_states))
        return hidden_states


class ToyScheduler:
    """Counts its steps as diffusers' schedulers do."""

    def set_timesteps(self, count: int) -> None:
        self.timesteps = torch.linspace(1000, 1, count)
        self.num_inference_steps = count
        self.step_index = 0


class ToyPipeline:
    """Shows its model ``tokens`` ``[b, s, 2]``, times the length of the prompt, in every step."""

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        self.model, self.tokens, self.scheduler = model, tokens, ToyScheduler()

    def __call__(self, prompt: str, num_inference_steps: int = 2, fail: bool = False) -> None:
        self.scheduler.set_timesteps(num_inference_steps)
        for time in self.scheduler.timesteps:
            self.model(self.tokens * len(prompt), time)
            self.scheduler.step_index += 1
        if fail:
            raise RuntimeError("out of memory")


def toy_structures(model: ToyModel) -> list[Structure]:
    return [
        Structure(
            kind="ffn",
            path=f"ff.{n}",
            units=layer.in_features,  # type: ignore[arg-type]
            cuts=(
                Cut(module=f"up.{n}", side="out", width=1),
                Cut(module=f"down.{n}", side="in", width=1),
            ),
        )
        for n, layer in enumerate(model.down)
    ]


def toy_subject(model: ToyModel, tokens: Tensor | None = None, **changes: Any) -> Subject:
    """A subject whose prompts are "a" unless said otherwise; without a pipeline if without tokens."""
    pipe = None if tokens is None else ToyPipeline(model, tokens)
    values: dict[str, Any] = {"prompts": ("a",), "structures": toy_structures(model)} | changes
    return Subject(model=model, pipe=pipe, **values)


def hooks(model: nn.Module) -> int:
    """Hooks on all of a model's modules."""
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
