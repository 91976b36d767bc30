"""The attention backend that the user has set computes what stays dense."""

from __future__ import annotations

from collections import Counter
from typing import Any

import diffusers
import pytest
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES

import sparsediff

WAN = FAMILIES["wan"]


def test_set_attention_backend_afterwards(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    before = pipe.transformer.blocks[0].attn1.processor._attention_backend
    try:
        pipe.transformer.set_attention_backend("_native_math")
        assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
        assert calls(pipe) == (18, 6)
        pipe.transformer.reset_attention_backend()
        WAN.run(pipe)
        assert calls(pipe) == (18, 6)
        with diffusers.attention_backend("_native_math"):
            WAN.run(pipe)
        assert calls(pipe) == (18, 6)
    finally:
        pipe.transformer.set_attention_backend("native")  # it also sets diffusers' global default
        pipe.transformer.reset_attention_backend()
    assert pipe.transformer.blocks[0].attn1.processor._attention_backend is before


def test_dense_calls_use_the_backend_that_was_set(pipe: Any) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    ran = []
    name = AttentionBackendName("_native_math")
    original = _AttentionBackendRegistry._backends[name]

    def counting(**arguments: Any) -> torch.Tensor:
        ran.append((arguments["query"].shape[1], arguments["key"].shape[1]))
        return original(**arguments)

    _AttentionBackendRegistry._backends[name] = counting
    try:
        pipe.enable_sparse_attention("window", density=0.3, block_size=8, warmup=0.5)
        with diffusers.attention_backend("_native_math"):
            WAN.run(pipe)
        assert calls(pipe) == (12, 12)
        assert Counter(ran) == {(48, 48): 12, (48, 16): 24}, "half of self-, all of cross-attention"
        pipe.disable_sparse_attention()
        assert _AttentionBackendRegistry._backends[name] is counting
    finally:
        _AttentionBackendRegistry._backends[name] = original


@pytest.mark.parametrize("compensate", [False, True])
def test_autocast(pipe: Any, compensate: bool) -> None:
    """The tensors are rounded as autocast does, the sums inside the kernels are not."""
    with torch.autocast("cpu", torch.bfloat16):
        dense = WAN.run(pipe)
        pipe.enable_sparse_attention(density=1.0, block_size=8, warmup=0.0, compensate=compensate)
        sparse = WAN.run(pipe)
    assert calls(pipe) == (24, 0)
    error = (sparse - dense).norm() / dense.norm()
    assert error < 0.02, "four steps of a model computed to 8 bits"


def test_named_backend_that_cannot_run_fails_at_the_first_step(pipe: Any) -> None:
    pipe.transformer.double()
    session = pipe.enable_sparse_attention(**OPTIONS, backend="cpu")
    latents = torch.zeros(1, 16, 3, 8, 8, dtype=torch.float64)
    with (
        pytest.raises(sparsediff.SparseError, match=r"'cpu' cannot run these inputs.*float64"),
        torch.no_grad(),
    ):
        pipe.transformer(
            hidden_states=latents,
            timestep=torch.tensor([900.0]),
            encoder_hidden_states=torch.zeros(1, 16, 32, dtype=torch.float64),
        )
    assert not session.enabled


def test_set_attention_backend_beforehand(pipe: Any) -> None:
    """What stays dense runs on the backend that was set, sparse or not."""
    try:
        pipe.transformer.set_attention_backend("_native_math")
        dense = WAN.run(pipe)
        pipe.enable_sparse_attention(**OPTIONS)
        WAN.run(pipe)
        assert calls(pipe) == (18, 6)
        pipe.disable_sparse_attention()
        assert torch.equal(WAN.run(pipe), dense)
    finally:
        pipe.transformer.set_attention_backend("native")  # it also sets diffusers' global default
        pipe.transformer.reset_attention_backend()
