"""What the rows of a table are made of: videos or pictures of prompts, each from a seed of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Request = tuple[str, int]  # prompt and seed


@torch.no_grad()
def generate(pipe: Any, call: dict[str, Any], requests: list[Request]) -> Tensor:
    """Videos uint8 `[requests, frames, 3, h, w]`; one seed each, whatever the batch.

    A picture is a video of one frame.
    """
    prompts = [prompt for prompt, _ in requests]
    generators = [torch.Generator().manual_seed(seed) for _, seed in requests]
    made = pipe(prompt=prompts, generator=generators, output_type="pt", **call)
    frames = made.images[:, None] if hasattr(made, "images") else made.frames
    return (frames.float().clamp(0, 1) * 255).round().byte()
