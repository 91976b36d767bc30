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


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
@pytest.mark.parametrize("offload_first", [True, False])
def test_group_offload_levels(
    pipe: Any, expected: torch.Tensor, level: str, offload_first: bool
) -> None:
    def offload() -> None:
        groups = {"num_blocks_per_group": 1} if level == "block_level" else {}
        pipe.transformer.enable_group_offload(
            onload_device=torch.device("cpu"), offload_type=level, **groups
        )

    if offload_first:
        offload()
    pipe.enable_sparse_attention(**OPTIONS)
    if not offload_first:
        offload()
    for _ in range(2):
        assert torch.equal(WAN.run(pipe), expected)
        assert calls(pipe) == (18, 6)


@pytest.mark.parametrize("offload_first", [True, False])
def test_sequential_offload(pipe: Any, expected: torch.Tensor, offload_first: bool) -> None:
    """Weights are on the meta device between the calls of their own module."""
    from accelerate import cpu_offload

    def offload() -> None:
        cpu_offload(pipe.transformer, execution_device=torch.device("cpu"))
        assert pipe.transformer.blocks[0].attn1.to_q.weight.is_meta

    if offload_first:
        offload()
    pipe.enable_sparse_attention(**OPTIONS)
    if not offload_first:
        offload()
    for _ in range(2):
        assert torch.equal(WAN.run(pipe), expected)
        assert calls(pipe) == (18, 6)


def test_another_dtype_while_enabled(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    for dtype in (torch.bfloat16, torch.float32):
        pipe.to(dtype)
        out = WAN.run(pipe)
        assert calls(pipe) == (18, 6)
    assert not torch.equal(out, expected), "the weights were rounded"
    # Rounded to 8 bits once, then computed exactly for four steps.
    assert (out - expected).norm() / expected.norm() < 0.05


def test_quantised_weights(pipe: Any) -> None:
    """Attention sees plain tensors whatever the projections are made of."""
    torchao = pytest.importorskip("torchao.quantization")
    blocks = pipe.transformer.blocks
    torchao.quantize_(blocks, torchao.Int8WeightOnlyConfig())
    assert type(blocks[0].attn1.to_q.weight) is not torch.nn.Parameter
    dense = WAN.run(pipe)
    pipe.enable_sparse_attention(**OPTIONS | {"density": 1.0, "warmup": 0.0})
    same = WAN.run(pipe)
    assert calls(pipe) == (24, 0)
    assert (same - dense).norm() / dense.norm() < 1e-4
    pipe.disable_sparse_attention()
    pipe.enable_sparse_attention(**OPTIONS)
    assert not torch.equal(WAN.run(pipe), dense)
    assert calls(pipe) == (18, 6)
