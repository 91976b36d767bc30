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
    graphs: str = ""  # why diffusers' own code does not compile into one graph

    def run(self, pipe: Any, *, steps: int = 4, seed: int = 0, **changes: Any) -> torch.Tensor:
        """The final latents of a run."""
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        arguments = self.call | {"num_inference_steps": steps} | changes
        return pipe(generator=generator, output_type="latent", **arguments)[0]


TEXT = {"prompt": "a red circle", "max_sequence_length": 16}
VIDEO = {"height": 64, "width": 64, "num_frames": 9}
GUIDED = TEXT | VIDEO | {"negative_prompt": "blurry"}
