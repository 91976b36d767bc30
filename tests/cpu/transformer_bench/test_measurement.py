"""Measuring: which path ran, what is refused, and that the parts are counted where they belong."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from narrow_architectures import narrow, small_case

from sparsediff import api
from sparsediff.kernels.errors import SparseError
from sparsediff.search import AdaSpa
from sparsediff.transformer_bench import measurement, phases, random_model
from sparsediff.transformer_bench.architectures import ARCHITECTURES
from sparsediff.transformer_bench.denoising import kinds_of
from sparsediff.transformer_bench.dense_kernel import DenseKernel, fastest_dense, timed_dense
from sparsediff.transformer_bench.measurement import measure_transformer
from sparsediff.transformer_bench.stopwatch import Stopwatch

CPU = torch.device("cpu")
NATIVE = DenseKernel(name="native", trials={"native": 1.0})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_family(name: str) -> None:
    thin = narrow(name)
    said: list[str] = []
    result = measure_transformer(small_case(thin), said.append)
    layers, branches = len(thin.stacks), len(thin.branches)
    assert result.model.layers == layers  # one of each kind
    assert result.model.all_layers == thin.layers
    assert result.model.tokens == torch.tensor(result.model.grid).prod() + result.model.text_tokens
    assert set(result.times) == {"search", "sparse", "refresh"}
    assert [len(found.rounds) for found in (result.dense, *result.times.values())] == [2, 1, 2, 1]
    assert result.sparse_calls == layers * branches * 3
    assert sum(result.backends.values()) == result.sparse_calls
    assert 0.1 < result.sparse_density < 0.9
    assert result.counts == {"dense": 9, "search": 1, "sparse": 39, "refresh": 1}
    for found in (result.dense, *result.times.values()):
        assert all(one.calls == layers * branches for one in found.rounds)
        assert 0 < found.attention_share < 1
    assert result.projected_dense == pytest.approx(50 * result.dense.seconds)
    wanted = (
        9 * result.dense.seconds
        + 39 * result.times["sparse"].seconds
        + result.times["search"].seconds
        + result.times["refresh"].seconds
    )
    assert result.projected == pytest.approx(wanted)
    assert result.peak_gib is None
    assert said[0] == "building the model"
    assert "dense steps, attention by native" in said


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        (6, ["search", "sparse", "sparse", "refresh", "sparse", "sparse"]),
        (5, ["search", "sparse", "refresh", "sparse", "sparse"]),
        (4, ["search", "refresh", "sparse", "sparse"]),
    ],
)
def test_short_runs(steps: int, kinds: list[str]) -> None:
    assert kinds_of(AdaSpa(), steps) == kinds


def test_kinds_of_fifty_steps() -> None:
    """The paper's: searched in steps 10 and 30."""
    kinds = kinds_of(AdaSpa(), 50)
    assert Counter(kinds) == {"dense": 9, "search": 1, "sparse": 39, "refresh": 1}
    assert (kinds.index("search"), kinds.index("refresh")) == (9, 29)


def test_a_run_whose_first_sparse_step_searches_again() -> None:
    result = measure_transformer(small_case(narrow("wan2.1-14b"), steps=4, repeat=5))
    assert {kind: len(found.rounds) for kind, found in result.times.items()} == {
        "search": 1,
        "refresh": 1,
        "sparse": 2,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": 100}, "--layers 100"),
        ({"size": (100, 128, 9)}, "nearest size"),
        ({"steps": 1}, "--steps 1 leaves no step"),
        ({"density": 1.5}, "density=1.5"),
        ({"repeat": 0}, "--repeat 0"),
    ],
)
def test_bad_input_before_anything_is_built(changes: Any, words: str) -> None:
    with pytest.raises(SparseError, match=words):
        small_case(narrow("wan2.1-14b"), **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device() -> None:
    with pytest.raises(SparseError, match="no CUDA device here; give --device cpu"):
        small_case(narrow("flux"), device="cuda")


def test_dense_times_are_never_called_sparse() -> None:
    """All tokens fit into one block, so nothing can run sparse."""
    others = set(api._enabled)  # of tests before, not collected yet
    with pytest.raises(SparseError, match=r"0 of 6 calls ran sparse.*fit into one block"):
        measure_transformer(small_case(narrow("wan2.1-14b"), block_size=512))
    assert not any(session.enabled for session in set(api._enabled) - others)


def test_attention_that_is_not_counted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    name = registry.get_active_backend()[0]

    def elsewhere(query: Any, key: Any, value: Any, **options: Any) -> Any:
        return query

    monkeypatch.setitem(registry._backends, name, elsewhere)
    with pytest.raises(SparseError, match="A dense step made 0 self-attention calls, not 2"):
        measure_transformer(small_case(narrow("wan2.1-14b")))


def test_weights_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_model, "free_memory", lambda device: 1000)
    with pytest.raises(
        SparseError, match=r"The weights take .* GiB.*Give fewer blocks with --layers"
    ):
        measure_transformer(small_case(narrow("hunyuanvideo")))


def test_steps_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. More.")

    monkeypatch.setattr(measurement, "dense_steps", full)
    with pytest.raises(SparseError, match=r"flux at 128x128x1 on cpu: give fewer .*--layers"):
        measure_transformer(small_case(narrow("flux")))


def test_free_memory_is_asked() -> None:
    free = random_model.free_memory(CPU)
    assert free is None or free > 2**20


def test_slow_steps_get_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "KIND_SECONDS", 0.0)
    result = measure_transformer(small_case(narrow("flux"), repeat=5))
    assert [len(found.rounds) for found in (result.dense, *result.times.values())] == [1] * 4


def test_weights() -> None:
    thin = narrow("wan2.1-14b")
    model = random_model.skeleton(thin.model, thin.with_layers(2))
    random_model.fill(model, device=CPU, dtype=torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert kinds["blocks.0.scale_shift_table"] == torch.float32  # as diffusers loads it
    assert kinds["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    first, second = (block.attn1.to_q.weight.float() for block in model.blocks)
    assert not torch.equal(first, second)
    assert float(first.std()) == pytest.approx(first.shape[1] ** -0.5, rel=0.1)
    assert (model.blocks[0].attn1.norm_q.weight == 1).all()
    assert (model.blocks[0].attn1.to_q.bias == 0).all()


def test_first_blocks_are_put_back() -> None:
    thin = narrow("flux")
    model = random_model.skeleton(thin.model, thin.with_layers(6))
    stacks = (model.transformer_blocks, model.single_transformer_blocks)
    with random_model.first_blocks(model):
        assert (len(model.transformer_blocks), len(model.single_transformer_blocks)) == (1, 1)
        assert model.transformer_blocks[0] is stacks[0][0]
    assert (model.transformer_blocks, model.single_transformer_blocks) == stacks
    assert list(map(len, stacks)) == [2, 4]


def test_dense_attention_is_found_by_its_length() -> None:
    stopwatch, original = Stopwatch(CPU), F.scaled_dot_product_attention
    long, short = torch.randn(1, 2, 32, 8), torch.randn(1, 2, 5, 8)
    with timed_dense(NATIVE, stopwatch, 32):
        F.scaled_dot_product_attention(long, short, short)
        assert stopwatch.read()[1] == 0
        out = F.scaled_dot_product_attention(long, long, long)
        seconds, calls = stopwatch.read()
    assert calls == 1
    assert seconds > 0
    assert torch.equal(out, original(long, long, long))
    assert F.scaled_dot_product_attention is original


@pytest.mark.parametrize("hidden", [0, 3])
def test_only_a_mask_that_hides_nothing_is_left_out(
    hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[Any] = []
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, attn_mask: masks.append(attn_mask)
    )
    x = torch.randn(1, 2, 32, 8)
    mask = (torch.arange(32) < 32 - hidden)[None, None, None]
    with timed_dense(NATIVE, Stopwatch(CPU), 32):
        F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    assert masks == [mask if hidden else None]


def test_the_fastest_kernel_of_a_cpu() -> None:
    found = fastest_dense((1, 64, 2, 8), device=CPU, dtype=torch.float32)
    assert found.name == "native"
    assert list(found.trials) == ["native"]


def test_a_span_inside_a_span_counts_once() -> None:
    stopwatch, start = Stopwatch(CPU), time.perf_counter()
    with stopwatch.span(), stopwatch.span():
        time.sleep(0.02)
    whole = time.perf_counter() - start
    seconds, spans = stopwatch.read()
    assert spans == 1
    assert 0.02 <= seconds <= whole
    assert stopwatch.read() == (0.0, 0)


def test_a_span_on_cuda_is_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read together after one wait, in milliseconds."""
    order: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("record")

        def elapsed_time(self, other: Event) -> float:
            assert order[-1] == "wait"
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    stopwatch = Stopwatch(torch.device("cuda"))
    for _ in range(2):
        with stopwatch.span(), stopwatch.span():
            order.append("work")
    assert order == 2 * ["record", "work", "record"]
    assert stopwatch.read() == (0.5, 2)
    assert stopwatch.read() == (0.0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_a_gpu(name: str) -> None:
    case = small_case(narrow(name), device="cuda", dtype=torch.bfloat16, block_size=64)
    case = dataclasses.replace(case, size=(512, 512, *case.size[2:]))
    result = measure_transformer(case)
    assert (
        result.sparse_calls == len(case.architecture.stacks) * len(case.architecture.branches) * 3
    )
    assert result.dense_kernel in result.dense_trials
    assert result.peak_gib is not None
    assert all(0 < peak < 8 for peak in result.peak_gib.values())
