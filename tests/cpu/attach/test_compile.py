"""torch.compile: one graph for all layers, with sparse attention inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from tiny_pipelines import FAMILIES, wan
from torch._dynamo.testing import CompileCounter

WAN = FAMILIES["wan"]
OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("compile_first", [True, False])
def test_repeated_blocks_share_one_graph(compile_first: bool) -> None:
    pipe = wan(layers=10)
    pipe.enable_sparse_attention(**OPTIONS)
    eager = WAN.run(pipe)
    pipe.disable_sparse_attention()
    counter = CompileCounter()

    def compile_blocks() -> None:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)

    if compile_first:
        compile_blocks()
    session = pipe.enable_sparse_attention(**OPTIONS)
    if not compile_first:
        compile_blocks()
    compiled = WAN.run(pipe)
    assert counter.frame_count == 1
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (60, 20)
    assert report.fallbacks == {}
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)


def test_fully_compiled_model() -> None:
    pipe = wan(layers=3)
    pipe.enable_sparse_attention(**OPTIONS)
    eager = WAN.run(pipe)
    counter = CompileCounter()
    pipe.transformer.compile(fullgraph=True, backend=counter)
    compiled = WAN.run(pipe)
    assert counter.frame_count == 1
    report = pipe.sparse_attention_report()
    assert (report.sparse_calls, report.dense_calls) == (18, 6)
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)


def test_disable_after_compile_is_dense() -> None:
    pipe = wan(layers=3)
    dense = WAN.run(pipe)
    counter = CompileCounter()
    session = pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    WAN.run(pipe)
    ran = len(session.log.calls)
    assert ran == 24
    pipe.disable_sparse_attention()
    torch.testing.assert_close(WAN.run(pipe), dense, atol=1e-5, rtol=1e-5)
    assert len(session.log.calls) == ran
