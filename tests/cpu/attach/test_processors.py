"""Attention processors that are fused, shared, replaced, or that diffusers never dispatches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES

WAN = FAMILIES["wan"]


def test_fused_projections(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.fuse_qkv_projections()
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
    assert calls(pipe) == (18, 6)


def test_shared_processor(pipe: Any, expected: torch.Tensor) -> None:
    model = pipe.transformer
    shared = model.blocks[0].attn1.processor
    for block in model.blocks:
        block.attn1.processor = shared
    pipe.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(pipe), expected)
    pipe.disable_sparse_attention()
    assert all(block.attn1.processor is shared for block in model.blocks)


def test_replaced_processors_are_noticed(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    pipe.enable_sparse_attention(**OPTIONS)
    for block in pipe.transformer.blocks[:2]:
        block.attn1.set_processor(WanAttnProcessor())
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert report.fallbacks == {"the attention processor was replaced": 16}
    assert (report.sparse_calls, report.dense_calls) == (6, 18)
    assert sum("processor was replaced" in r.message for r in caplog.records) == 1
    pipe.disable_sparse_attention()


def test_processors_past_the_dispatcher_are_noticed(pipe: Any) -> None:
    class Direct:
        """A processor of the user's own that calls torch itself."""

        def __call__(self, attn: Any, hidden_states: Any, *rest: Any, **more: Any) -> Any:
            q, k, v = (
                part(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
                for part in (attn.to_q, attn.to_k, attn.to_v)
            )
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return attn.to_out[0](out.transpose(1, 2).flatten(2))

    for block in pipe.transformer.blocks:
        block.attn1.processor = Direct()
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert (report.sparse_calls, report.dense_calls) == (0, 24)
    assert list(report.fallbacks.values()) == [24]
    assert "Direct computes attention without diffusers' attention dispatch" in report.fallbacks


def test_fused_before_enabling(pipe: Any, expected: torch.Tensor) -> None:
    pipe.transformer.fuse_qkv_projections()
    pipe.enable_sparse_attention(**OPTIONS)
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
    assert calls(pipe) == (18, 6)
    pipe.transformer.unfuse_qkv_projections()
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
    assert calls(pipe) == (18, 6)


@pytest.mark.parametrize("fused_first", [True, False])
def test_fusing_that_exchanges_processors(fused_first: bool) -> None:
    """CogVideoX gets other processors when it is fused: those have to be there when enabling."""
    family = FAMILIES["cogvideox"]
    pipe = family.build()
    dense = family.run(pipe)
    if fused_first:
        pipe.transformer.fuse_qkv_projections()
    session = pipe.enable_sparse_attention(**OPTIONS)
    if not fused_first:
        pipe.transformer.fuse_qkv_projections()
    out = family.run(pipe)
    report = session.report()
    if fused_first:
        assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (6, 2, {})
    else:
        assert report.sparse_calls == 0
        assert report.fallbacks == {"the attention processor was replaced": 8}
        assert torch.allclose(out, dense, atol=1e-4)


def test_memory_savers_that_exchange_processors() -> None:
    """Attention slicing brings old processors into UNets, which is noticed and said."""
    family = FAMILIES["sdxl"]
    pipe = family.build()
    session = pipe.enable_sparse_attention(**OPTIONS)
    pipe.enable_attention_slicing(1)
    family.run(pipe)
    report = session.report()
    assert report.sparse_calls == 0
    assert report.fallbacks["the attention processor was replaced"] == report.dense_calls
    pipe.disable_sparse_attention()
    pipe.disable_attention_slicing()
    pipe.enable_sparse_attention(**OPTIONS)
    family.run(pipe)
    assert calls(pipe)[0] > 0


def test_memory_savers_that_change_nothing(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.enable_attention_slicing()
    pipe.vae.enable_tiling()
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)
