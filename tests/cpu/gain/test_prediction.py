"""The arithmetic of a prediction: what a method computes in a run, and what that takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_calls import Recorder, call, tensors

from sparsediff.gain.case import PER_THREAD, GainCase
from sparsediff.gain.outlook import crossing
from sparsediff.gain.prediction import USUAL_STEPS, predict
from sparsediff.gain.times import AttentionTimes
from sparsediff.search import (
    AdaSpa,
    AttentionCall,
    BladeASA,
    Memory,
    Method,
    PatternTable,
    PlannedHead,
    RandomBlocks,
    SparseVDiT,
    Step,
    TokenGrid,
    TrueMass,
    Window,
    sampled_probe,
)
from sparsediff.search.offline.cost_curves import Curve
from sparsediff.search.patterns.pattern import Diagonal, Online

GRID = TokenGrid(frames=2, height=4, width=8)
CASE = GainCase(
    tokens=2304,
    streams=12,
    head_dim=32,
    dtype=torch.float32,
    device=torch.device("cpu"),
    block_size=64,
)
TIMES = AttentionTimes(
    dense_seconds=0.25,
    sparse=Curve(points=((0.2, 0.3), (0.6, 0.7))),
    dense_with_lse=1.2,
    mass=0.4,
    choice=0.1,
    probe=0.08,
    joined=0.05,
)


def predicted(method: Method, steps: int | None, density: float = 0.4) -> Any:
    return predict(CASE, TIMES, method, density=density, steps=steps)


def test_adaspa_by_hand() -> None:
    """20 steps: 3 dense, 1 with the LSE and the search, 16 sparse, one of them searched again."""
    found = predicted(AdaSpa(), 20)
    assert found.sparse_ratio == pytest.approx(0.5)
    assert found.ratio == pytest.approx((3 + 1.2 + 2 * 0.5 + 16 * 0.5) / 20)
    assert found.search_share == pytest.approx((0.2 + 2 * 0.5) / 20)
    assert (found.tokens, found.steps, found.density, found.pays) == (2304, 20, 0.4, True)


def test_a_strided_search_is_cheaper_by_its_stride() -> None:
    found = predicted(AdaSpa(query_stride=4), 20)
    assert found.ratio == pytest.approx((3 + 1.2 + 2 * (0.1 + 0.1) + 16 * 0.5) / 20)


def test_methods_that_search_nothing_and_everything() -> None:
    assert predicted(Window(), 10).ratio == pytest.approx(0.5)
    assert predicted(Window(warmup=0.3), 10).ratio == pytest.approx((3 + 7 * 0.5) / 10)
    every = predicted(TrueMass(warmup=0.2), 10)
    assert every.ratio == pytest.approx((2 + 8 * (0.5 + 1.2 + 0.5)) / 10)
    assert not every.pays
    assert every.reason().startswith("attention over 2,304 tokens at density 0.40")


def test_a_probe_costs_its_share_of_the_pairs_in_every_call() -> None:
    """As measured for a fourth of the tokens, and one key for 32; all tokens cost 16 times as much."""
    every = predicted(BladeASA(block_size=32, sample_tokens=8, warmup=0.2), 10)
    assert every.ratio == pytest.approx((2 + 8 * (0.5 + 0.08 + 0.1)) / 10)
    assert every.search_share == pytest.approx(8 * (0.08 + 0.1) / 10)
    joined = predicted(BladeASA(block_size=32, sample_tokens=99, global_window=32), 10)
    assert joined.ratio == pytest.approx(0.5 + 0.05 + 16 * 0.08 + 0.1)
    assert joined.sparse_ratio == pytest.approx(0.5 + 0.05)


def test_the_probe_looks_at_the_share_of_pairs_that_is_predicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted where they are multiplied, of a grid of whole blocks."""
    pairs = []
    true = sampled_probe._product

    def product(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
        pairs.append(queries.shape[2] * keys.shape[2])
        return true(queries, keys, scale)

    monkeypatch.setattr(sampled_probe, "_product", product)
    method = BladeASA(block_size=8, sample_tokens=3)
    method.attend(call(GRID, Step(index=0), Recorder(), tensors(GRID)), Memory())
    assert sum(pairs) == method.work(1).probed * GRID.tokens**2


def test_a_run_of_unknown_length_counts_as_the_usual_one() -> None:
    assert predicted(AdaSpa(), None) == predicted(AdaSpa(), USUAL_STEPS)


def test_the_time_of_a_dense_call_is_that_of_the_whole_one() -> None:
    """Streams beyond the limit are scaled in proportion, tokens by their square."""
    long = replace(CASE, tokens=100_000, streams=1)
    timed = long.timed
    assert timed.heads == 1
    assert timed.grid.tokens < 100_000
    assert 4 * timed.grid.tokens**2 * 32 <= PER_THREAD * torch.get_num_threads()
    assert long.scale == pytest.approx((100_000 / timed.grid.tokens) ** 2)
    wide = replace(CASE, streams=1000)
    assert (wide.timed.grid.tokens, wide.scale) == (2304, 1000 / wide.timed.heads)
    found = predict(wide, TIMES, AdaSpa(), density=0.4, steps=20)
    assert found.dense_seconds == pytest.approx(0.25 * 1000 / wide.timed.heads)


def test_what_is_timed_alike_shares_an_entry() -> None:
    wide = replace(CASE, streams=1000)
    assert wide.key("cpu") == replace(CASE, streams=999).key("cpu")
    others: list[dict[str, Any]] = [
        {"tokens": 2240},
        {"head_dim": 64},
        {"dtype": torch.bfloat16},
        {"block_size": 32},
        {"dense": "flash"},
        {"masked": True},
        {"compensate": True},
        {"moved": True},
    ]
    keys = {CASE.key("cpu"), *(replace(CASE, **change).key("cpu") for change in others)}
    assert len(keys) == 1 + len(others)
    assert CASE.key("gather") not in keys


def table(*heads: PlannedHead) -> PatternTable:
    return PatternTable(
        grid=GRID, block_size=8, starts=(0.25, 0.6), buckets=((heads,), (heads,)), density=0.4
    )


NARROW = PlannedHead(pattern=Diagonal(half_width=0.1), error=0.2)
SEARCHED = PlannedHead(pattern=Online(density=0.4))
METHODS: list[Method] = [
    AdaSpa(block_size=8),
    AdaSpa(block_size=8, warmup=0.0, refresh=(0.3, 0.5, 0.9)),
    AdaSpa(block_size=8, warmup=0.5, refresh=(0.2,)),
    Window(block_size=8, warmup=0.4),
    RandomBlocks(block_size=8),
    BladeASA(block_size=8, token_order="raster"),
    BladeASA(block_size=8, warmup=0.3, sample_tokens=2, global_window=4),
    TrueMass(block_size=8, warmup=0.3),
    SparseVDiT(table=table(*[NARROW] * 4)),
    SparseVDiT(table=table(NARROW, NARROW, NARROW, SEARCHED)),
    SparseVDiT(table=table(*[NARROW] * 4), online_above=0.1),
]


@pytest.mark.parametrize("steps", [2, 4, 7, 20])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_work_of_a_run_is_what_it_does(
    method: Method, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"dense": 0, "sparse": 0, "lse": 0, "searches": 0.0, "probes": 0}

    def counted(name: str, key: str) -> None:
        true = getattr(AttentionCall, name)

        def run(self: AttentionCall, *args: Any, **options: Any) -> Any:
            counts[key] += self.q.shape[2] / 4  # of four heads
            return true(self, *args, **options)

        monkeypatch.setattr(AttentionCall, name, run)

    for name, key in [("dense", "dense"), ("dense_with_lse", "lse"), ("lse", "lse")]:
        counted(name, key)
    counted("sparse", "sparse")
    counted("mass", "searches")
    counted("probe", "probes")
    recorder, memory, qkv = Recorder(), Memory(), tensors(GRID)
    for index in range(steps):
        step = Step(index=index, total=steps, progress=index / steps)
        method.attend(call(GRID, step, recorder, qkv), memory)
    work = method.work(steps)
    assert (work.dense, work.sparse) == (counts["dense"], counts["sparse"])
    assert (work.dense_with_lse, work.searches) == (counts["lse"], counts["searches"])
    assert work.probes == counts["probes"]


@pytest.mark.parametrize("text", [{}, {"text_after": 11}, {"text_before": 8}, {"text_after": 900}])
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_the_density_of_a_call_counts_its_text(text: dict[str, int], density: float) -> None:
    grid = TokenGrid(frames=4, height=8, width=7, **text)
    method = Window(density=density, block_size=16)
    mask = method.mask(grid, torch.device("cpu"))
    assert method.computed_density(grid) == pytest.approx(mask.density)


def test_break_even_lies_on_the_line_between_the_lengths_around_it() -> None:
    assert crossing([(128, 4.0), (256, 2.0), (512, 1.0 / 2)]) == round(256 * 2**0.5)
    assert crossing([(128, 1.25), (256, 0.8)]) == round(128 * 2**0.5)
    assert crossing([(128, 0.9), (256, 0.5)]) == 128
    assert crossing([(128, 0.9), (256, 1.1)]) is None
    assert crossing([(128, 0.5), (256, 4.0), (512, 0.25)]) == round(512 / 2**0.5)
