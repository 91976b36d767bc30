"""torch.compile: one graph for all layers, with sparse attention inside."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES, wan
from torch._dynamo.testing import CompileCounter

SUPPORT = Path(__file__).parents[2] / "support"
WAN = FAMILIES["wan"]


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


@pytest.mark.parametrize("way", ["method", "function"])
def test_fully_compiled_model(way: str) -> None:
    twin = wan(layers=3)
    twin.enable_sparse_attention(**OPTIONS)
    pipe = wan(layers=3)
    session = pipe.enable_sparse_attention(**OPTIONS)
    counter = CompileCounter()
    if way == "method":
        pipe.transformer.compile(fullgraph=True, backend=counter)
    else:
        pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=counter)
    compiled = WAN.run(pipe)
    assert counter.frame_count == 1
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (18, 6)
    assert report.fallbacks == {}
    torch.testing.assert_close(compiled, WAN.run(twin), atol=1e-4, rtol=1e-4)
    wide = WAN.run(pipe, width=128)
    assert session.report().sparse_calls == 18
    assert session.report().fallbacks == {}
    torch.testing.assert_close(wide, WAN.run(twin, width=128), atol=1e-4, rtol=1e-4)


def test_compiled_before_anything_ran() -> None:
    """In a new process and a new thread: no eager run has prepared anything for the compiler."""
    code = f"""
import sys, threading
sys.path.insert(0, {str(SUPPORT)!r})
from torch._dynamo.testing import CompileCounter
from tiny_pipelines import FAMILIES, wan
import sparsediff
pipe, counter = wan(layers=9), CompileCounter()
session = pipe.enable_sparse_attention(density=0.4, block_size=8, warmup=0.25)
pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
run = lambda: FAMILIES["wan"].run(pipe)
run()
print(counter.frame_count, session.report().sparse_calls, session.report().fallbacks)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(counter.frame_count, session.report().sparse_calls, session.report().fallbacks)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["1 54 {}", "1 54 {}"]


def test_gradients_in_a_compiled_model_run_dense_and_say_so() -> None:
    pipe = wan(layers=3)
    session = pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    out = pipe.transformer(
        hidden_states=torch.randn(1, 16, 3, 8, 8),
        timestep=torch.tensor([900.0]),
        encoder_hidden_states=torch.randn(1, 16, 32),
    )[0]
    out.sum().backward()
    assert pipe.transformer.blocks[0].attn1.to_q.weight.grad.abs().sum() > 0
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, 3)
    assert report.fallbacks == {"gradients in a compiled model": 3}


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


def graphs_by_size(sparse: bool) -> list[int]:
    """Graphs so far after a run at each of several sizes, then with more steps."""
    torch._dynamo.reset()
    pipe, counter, graphs = wan(), CompileCounter(), []
    if sparse:
        pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    for change in (
        {"width": 64},
        {"width": 128},
        {"width": 96},
        {"height": 128},
        {"num_frames": 17},
    ):
        WAN.run(pipe, steps=2, **change)
        graphs.append(counter.frame_count)
    WAN.run(pipe, steps=3)
    if sparse:
        assert calls(pipe) == (12, 6)
    return [*graphs, counter.frame_count]


def test_sizes_and_steps_need_no_more_graphs_than_the_dense_model() -> None:
    dense = graphs_by_size(sparse=False)
    assert graphs_by_size(sparse=True) == dense
    assert dense[0] == 1


def test_enabling_again_needs_no_new_graph() -> None:
    pipe, counter = wan(), CompileCounter()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    graphs, made = [], []
    for _ in range(3):
        pipe.enable_sparse_attention(**OPTIONS)
        made.append(WAN.run(pipe))
        assert calls(pipe) == (18, 6)
        graphs.append(counter.frame_count)
        pipe.disable_sparse_attention()
        WAN.run(pipe)
        graphs.append(counter.frame_count)
    assert graphs == [1, 2, 2, 2, 2, 2], "one with sparse attention and one without"
    assert torch.equal(made[0], made[2])


def test_enabled_pipeline_collected_while_another_is_compiled() -> None:
    """The functions that the graph in the making has seen stay until it is made."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = dict(_AttentionBackendRegistry._backends)
    forgotten = [wan()]
    forgotten[0].enable_sparse_attention(**OPTIONS)
    wrapped = dict(_AttentionBackendRegistry._backends)
    seen = []

    def collecting(graph: Any, inputs: Any) -> Any:
        forgotten.clear()
        gc.collect()
        seen.append(dict(_AttentionBackendRegistry._backends) == wrapped)
        return graph.forward

    pipe = wan()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=collecting)
    WAN.run(pipe, steps=1)
    assert seen[0]
    gc.collect()
    assert dict(_AttentionBackendRegistry._backends) == before
