"""Family: a tiny pipeline, how to call it, and what a run of it consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Family:
    """A pipeline, how to call it, and what a run of it consists of."""

    name: str
    build: Callable[[], Any]
    call: dict[str, Any] = field(default_factory=dict)
    layers: int = 0
    forwards: int = 1  # per step
    text: int = 0  # text tokens inside self-attention
    guidance: str = "none"  # or "two calls", "one batch"
    rows: int = 1  # of the batch for one video: Latte has one for each frame
    row_calls: int = (
        1  # attention calls of a layer's call: Mochi makes one for each row of the batch
    )
    each: tuple[str, ...] = ("prompt", "negative_prompt")  # arguments that are lists for several
    twice: str = ""  # the argument that asks for two of a prompt, where no list of prompts is taken
    alone: str = ""  # why the pipeline makes one video at a time
    graphs: str = ""  # why diffusers' own code does not compile into one graph

    def calls(self, steps: int) -> int:
        """Self-attention calls of a run."""
        return self.layers * self.forwards * self.row_calls * steps

    def run(self, pipe: Any, *, steps: int = 4, seed: int = 0, **changes: Any) -> torch.Tensor:
        """The final latents of a run."""
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        arguments = self.call | {"num_inference_steps": steps} | changes
        return _latents(pipe(generator=generator, output_type="latent", **arguments))

    def run_two(self, pipe: Any, *, steps: int, seeds: tuple[int, int]) -> torch.Tensor:
        """The final latents of the prompt twice in a batch, each row with its own noise."""
        names = [name for name in self.each if name in self.call]
        prompts: dict[str, Any] = {name: _twice(self.call[name]) for name in names}
        if self.twice:
            prompts = {self.twice: 2}
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        arguments = self.call | prompts | {"num_inference_steps": steps}
        return _latents(pipe(generator=noise, output_type="latent", **arguments))


def _twice(value: Any) -> Any:
    """A text or picture in a list of two; a tensor, which has a row for every prompt, with two."""
    return torch.cat([value] * 2) if isinstance(value, torch.Tensor) else [value] * 2


def _latents(output: Any) -> torch.Tensor:
    """The latents of a pipeline's output; those of its last section, where it makes a list."""
    latents: Any = output[0]
    return latents[-1] if isinstance(latents, list) else latents


TEXT = {"prompt": "a red circle", "max_sequence_length": 16}
VIDEO = {"height": 64, "width": 64, "num_frames": 9}
GUIDED = TEXT | VIDEO | {"negative_prompt": "blurry"}
