"""Models whose processors call torch's attention themselves: CogVideoX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from tiny_pipelines import FAMILIES, cogvideox
from torch._dynamo.testing import CompileCounter

COG = FAMILIES["cogvideox"]
OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25}
SPARSE, DENSE = 6, 2  # calls of four steps over two layers, one dense step


@pytest.fixture
def pipe() -> Any:
    return cogvideox()


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_both_guidance_branches_have_their_own_pattern(pipe: Any) -> None:
    session = pipe.enable_sparse_attention(**OPTIONS)
    COG.run(pipe)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (SPARSE, DENSE, {})
    masks = session.masks()
    assert list(masks) == [f"transformer.transformer_blocks.{i}.attn1" for i in range(2)]
    assert all(mask.counts.shape[0] == 2 for mask in masks.values())


def test_text_in_front_is_always_computed(pipe: Any) -> None:
    session = pipe.enable_sparse_attention("window", density=0.1, block_size=8)
    COG.run(pipe)
    text = COG.text // 8
    for mask in session.masks().values():
        dense = mask.to_dense()
        assert dense[..., :text].all()
        assert dense[..., :text, :].all()
        assert not dense.all()


def test_dense_steps_are_bit_exact(pipe: Any) -> None:
    dense = COG.run(pipe)
    pipe.enable_sparse_attention("window", warmup=0.9, density=0.1, block_size=8)
    assert torch.equal(COG.run(pipe), dense)
    report = pipe.sparse_attention_report()
    assert (report.sparse_calls, report.dense_calls) == (0, SPARSE + DENSE)


def test_others_keep_torchs_attention(pipe: Any) -> None:
    """Neither torch's function nor another model's processors are exchanged."""
    function, other = F.scaled_dot_product_attention, cogvideox()
    pipe.enable_sparse_attention("window", density=0.1, block_size=8)
    assert F.scaled_dot_product_attention is function
    dense = COG.run(other)
    assert pipe.sparse_attention_report().sparse_calls == 0
    assert not torch.equal(COG.run(pipe), dense)


def test_fused_projections(pipe: Any) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    plain = COG.run(pipe)
    pipe.disable_sparse_attention()
    pipe.transformer.fuse_qkv_projections()
    pipe.enable_sparse_attention(**OPTIONS)
    fused = COG.run(pipe)
    report = pipe.sparse_attention_report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (SPARSE, DENSE, {})
    torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-4)
    pipe.disable_sparse_attention()
    shared = {id(processor) for processor in pipe.transformer.attn_processors.values()}
    assert len(shared) == 1  # as diffusers left them


def test_compiled_whole(pipe: Any) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    eager = COG.run(pipe)
    pipe.disable_sparse_attention()
    pipe.enable_sparse_attention(**OPTIONS)
    counter = CompileCounter()
    pipe.transformer.compile(fullgraph=True, backend=counter)
    compiled = COG.run(pipe)
    report = pipe.sparse_attention_report()
    assert counter.frame_count == 1
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (SPARSE, DENSE, {})
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)
