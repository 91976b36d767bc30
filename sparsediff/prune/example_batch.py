"""A small batch for a model that is there without its pipeline, made from its config: random inputs.

Whether a cut model computes what the masked one does can be seen on any inputs that the model takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.prune.example_inputs import INPUTS, Batch
from sparsediff.prune.pruned_model import stock_name


@torch.no_grad()
def example_batch(model: nn.Module) -> Batch | None:
    """Arguments of a model's forward by name, on its device and in its dtype; one small sample.

    None for classes whose inputs do not follow from their config (Wan VACE and Animate, FramePack,
    HunyuanVideo 1.5), where the model does not take them, and where it answers with zeros, as one that
    was never trained: nothing could be seen by them.
    """
    made = INPUTS.get(stock_name(type(model)))
    if made is None:
        return None
    told: Any = model  # its dtype is that of most weights: some always stay in float32
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(told.device, told.dtype)

    batch = {"timestep": torch.tensor([500], device=told.device), **made(told.config, noise)}
    try:
        output: Tensor = model(**batch, return_dict=False)[0]
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError):
        return None
    return batch if bool(output.any()) else None
