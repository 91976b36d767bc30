"""Tiny pipelines, pruned: one self-attention has lost all heads, one some, and a block is gone."""

from __future__ import annotations

from typing import Any

import torch
from tiny_pipelines import FAMILIES, wan

from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove

_UP = "up_blocks.0.attentions.0.transformer_blocks"
_MID = "mid_block.attentions.0.transformer_blocks"

# Of Wan with four blocks: two layers of self-attention are left, of two heads and one.
WAN_MASKS = Masks(
    kept={
        "heads/blocks.0.attn1": torch.tensor([False, False]),
        "heads/blocks.1.attn1": torch.tensor([False, True]),
        "heads/blocks.1.attn2": torch.tensor([False, False]),
        "ffn/blocks.2.ffn": torch.arange(32) % 3 > 0,
        "blocks/blocks.3": torch.tensor([False]),
    }
)
# Of the UNet with eight layers of self-attention of four heads: six are left, one with one head.
UNET_MASKS = Masks(
    kept={
        f"heads/{_UP}.0.attn1": torch.zeros(4, dtype=torch.bool),
        f"heads/{_UP}.1.attn1": torch.arange(4) == 2,
        f"heads/{_UP}.1.attn2": torch.zeros(4, dtype=torch.bool),
        f"ffn/{_UP}.0.ff": torch.arange(128) % 2 > 0,
        f"blocks/{_MID}.0": torch.tensor([False]),
    }
)


def pruned_wan() -> Any:
    pipe = wan(layers=4)
    pipe.transformer = remove(pipe.transformer, WAN_MASKS)
    return pipe


def pruned_sdxl() -> Any:
    pipe = FAMILIES["sdxl"].build()
    pipe.unet = remove(pipe.unet, UNET_MASKS)
    return pipe
