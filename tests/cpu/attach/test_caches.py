"""Caches that skip blocks or attention, switched on before and after sparse attention."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES

WAN = FAMILIES["wan"]


def test_first_block_cache_skips_calls(pipe: Any) -> None:
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e9))
    pipe.enable_sparse_attention(**OPTIONS)
    out = WAN.run(pipe)
    sparse, dense = calls(pipe)
    # The first block runs at all 4 steps of both branches, the others only at the first step.
    assert (sparse, dense) == (6, 6)
    assert torch.isfinite(out).all()
    pipe.disable_sparse_attention()
    pipe.transformer.disable_cache()
    assert "forward" not in vars(pipe.transformer)
