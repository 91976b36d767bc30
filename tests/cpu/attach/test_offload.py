"""Weights that move, change dtype or are quantised while sparse attention is on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES

WAN = FAMILIES["wan"]


def test_group_offload(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)


@pytest.mark.parametrize("offload_first", [True, False])
def test_model_offload(pipe: Any, expected: torch.Tensor, offload_first: bool) -> None:
    """accelerate's hook rewrites forward and is taken off after each run, as model offload does."""
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    if offload_first:
        add_hook_to_module(pipe.transformer, ModelHook())
    pipe.enable_sparse_attention(**OPTIONS)
    if not offload_first:
        add_hook_to_module(pipe.transformer, ModelHook())
    assert torch.equal(WAN.run(pipe), expected)
    remove_hook_from_module(pipe.transformer)
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)


def test_layerwise_casting(pipe: Any) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    assert torch.isfinite(WAN.run(pipe)).all()
    assert calls(pipe) == (18, 6)
