"""Costs of patterns: measured in turns, read from the file, interpolated; FLOPs where nothing is timed.

The kernels are fakes on a clock of their own: they take the time that the test says.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsediff.kernels import BackendError, BlockMask, SparseError, measured_file, turns
from sparsediff.search import TokenGrid
from sparsediff.search.offline import cost_trial
from sparsediff.search.offline.cost import Cost, FlopsCost, MeasuredCost, measured_cost
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.offline.cost_curves import KINDS, CostCurves, Curve
from sparsediff.search.offline.cost_file import FILE
from sparsediff.search.offline.cost_masks import masks
from sparsediff.search.offline.cost_trial import CostTrial

GRID = TokenGrid(frames=4, height=8, width=8, text_after=5)
DENSE, MASS, SETUP, REORDER = 1.0, 0.4, 0.05, 0.3
CASE = CostCase(
    grid=GRID,
    heads=2,
    head_dim=8,
    dtype=torch.float32,
    device=torch.device("cpu"),
    block_size=16,
    backend="reference",
)


class FakeKernels:
    """Kernels that move a clock: dense by 1 s, sparse by 0.05 s and its density; counts the calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: Counter[str] = Counter()
        self.backends: set[str] = set()
        self.orders: list[bool] = []
        self.drift = 1.0
        self.inputs: list[Tensor] = []

    def perf_counter(self) -> float:
        return self.now

    def spend(self, name: str, seconds: float) -> None:
        self.calls[name] += 1
        self.now += seconds * self.drift

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.drift *= 1.2  # the machine gets slower, turn by turn
        self.spend("dense", DENSE)
        return q, torch.zeros(q.shape[0], q.shape[2], q.shape[1])

    def sparse(self, q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, backend: str) -> Tensor:
        moved = not any(q is known for known in self.inputs)
        if len(self.inputs) < 1:
            self.inputs.append(q)  # the trial's own tensor: the first call is not a reordered one
            moved = False
        self.backends.add(backend)
        self.spend("reordered" if moved else "sparse", SETUP + mask.density + REORDER * moved)
        return q

    def mass(self, q: Tensor, k: Tensor, lse: Tensor, *, block_size: int) -> Tensor:
        assert block_size == 16
        self.spend("mass", MASS)
        return q


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeKernels:
    fake = FakeKernels()
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(turns, "perf_counter", fake.perf_counter)
    monkeypatch.setattr(cost_trial, "dense_attention_lse", fake.dense)
    monkeypatch.setattr(cost_trial, "block_sparse_attention", fake.sparse)
    monkeypatch.setattr(cost_trial, "block_mass", fake.mass)
    monkeypatch.setattr(cost_trial, "SECONDS", 1e9)
    measured_file.warn_once.cache_clear()
    return fake


def measured(case: CostCase = CASE, searches_per_call: float = 0.25) -> MeasuredCost:
    found = measured_cost(case, searches_per_call=searches_per_call)
    assert isinstance(found, MeasuredCost)
    return found


@pytest.mark.parametrize("mode", ["diagonal", "multi-diagonal", "stripe"])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.62, 0.9])
def test_a_share_is_what_the_kernel_took(kernels: FakeKernels, mode: str, density: float) -> None:
    share = measured().share(mode, density)
    assert share == pytest.approx(SETUP + density)
    assert kernels.calls["sparse"] > 0
    assert kernels.calls["reordered"] > 0
    assert kernels.backends == {"reference"}, "the backend that was named"


def test_full_skip_online_and_reordered_heads(kernels: FakeKernels) -> None:
    cost = measured()
    assert cost.share("full", 1.0) == pytest.approx(DENSE + SETUP)
    assert cost.share("skip", 0.0) == 0.0
    online = cost.share("online", 0.4)
    assert online == pytest.approx(SETUP + 0.4 + 0.25 * MASS)
    dearer = cost.share("multi-diagonal", 0.4, by_place=True) - cost.share("multi-diagonal", 0.4)
    assert dearer == pytest.approx(REORDER), "the permutation is part of the time"
    unsearched = measured(searches_per_call=0).share("online", 0.4)
    assert unsearched == pytest.approx(online - 0.25 * MASS)


def test_turns_cancel_a_machine_that_slows_down(kernels: FakeKernels) -> None:
    measured()
    rounds = kernels.calls["dense"] - 2  # one for the LSE, one untimed
    assert kernels.drift >= 1.2**rounds, "times of different turns have nothing in common"
    assert rounds == cost_trial.MOST_ROUNDS
    runs = sum(len(masks(kind, CASE)) for kind in KINDS)
    assert kernels.calls["sparse"] + kernels.calls["reordered"] == (rounds + 1) * runs


@pytest.mark.parametrize(("seconds", "rounds"), [(0.01, 1), (30.0, 3)])
def test_a_slow_device_gets_fewer_rounds(
    kernels: FakeKernels, monkeypatch: pytest.MonkeyPatch, seconds: float, rounds: int
) -> None:
    monkeypatch.setattr(cost_trial, "SECONDS", seconds)
    measured()
    assert kernels.calls["dense"] == 2 + rounds


def test_the_file_is_read_and_no_kernel_called(kernels: FakeKernels) -> None:
    first = measured()
    before = dict(kernels.calls)
    assert measured() == first
    assert kernels.calls == before
    assert [path.name for path in FILE.path.parent.iterdir()] == ["costs.json"]
    other = dataclasses.replace(CASE, heads=3)
    measured(other)
    assert kernels.calls["dense"] > before["dense"], "another shape is measured"
    assert len(FILE.load()) == 2


@pytest.mark.parametrize(
    "change",
    [{"backend": "cpu"}, {"dtype": torch.bfloat16}, {"block_size": 32}, {"head_dim": 16}],
)
def test_each_case_has_its_own_entry(change: dict[str, Any]) -> None:
    other = dataclasses.replace(CASE, **change)
    assert other.key(other.backend) != CASE.key(CASE.backend)


def test_another_version_measures_again(
    kernels: FakeKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured()
    monkeypatch.setattr("sparsediff.search.offline.cost_case.versions", lambda: "torch 99")
    measured()
    assert len(FILE.load()) == 2


def test_of_processes_that_start_together_the_first_is_kept(
    kernels: FakeKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = CostTrial.of(CASE, "reference").curves()
    theirs = dataclasses.replace(theirs, search_pass=9.0)

    def raced(trial: CostTrial) -> CostCurves:
        FILE.save(CASE.key("reference"), theirs, replace=False)
        return dataclasses.replace(theirs, search_pass=1.0)

    monkeypatch.setattr(CostTrial, "curves", raced)
    assert measured().curves.search_pass == 9.0


@pytest.mark.parametrize("key", ["curves", "search_pass", "words"])
def test_a_broken_file_is_measured_anew(
    kernels: FakeKernels, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    measured()
    document = json.loads(FILE.path.read_text())
    next(iter(document["entries"].values()))[key] = {"diagonal": [[0.5, -1]]}
    FILE.path.write_text(json.dumps(document))
    before = kernels.calls["dense"]
    with caplog.at_level(logging.WARNING):
        measured()
    assert kernels.calls["dense"] > before
    assert caplog.text.count("costs of patterns are measured again") == 1
    assert len(FILE.load()) == 1


def test_a_curve_is_straight_between_and_beyond_its_points() -> None:
    curve = Curve(points=((0.2, 0.3), (0.6, 0.5), (0.8, 0.9)))
    assert [round(curve.at(d), 6) for d in (0.2, 0.4, 0.6, 0.7)] == [0.3, 0.4, 0.5, 0.7]
    assert curve.at(1.0) == pytest.approx(1.3)
    assert curve.at(0.1) == pytest.approx(0.25)
    assert Curve(points=((0.2, 0.1), (0.4, 0.9))).at(0.0) == 0.0, "never below 0"
    assert Curve(points=((0.5, 0.4),)).at(0.25) == pytest.approx(0.2)


def test_more_density_never_costs_less() -> None:
    curve = Curve(points=((0.1, 0.2), (0.3, 0.6), (0.5, 0.4), (0.9, 0.7)))
    shares = [curve.at(d / 100) for d in range(101)]
    assert shares == sorted(shares)
    assert curve.at(0.5) == 0.6


@pytest.mark.parametrize(
    "points",
    [(), ((0.5, 0.0),), ((0.0, 0.5),), ((0.5, float("nan")),), ((0.5, 0.1), (0.5, 0.2))],
)
def test_curves_refuse(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match=r"densit|curve"):
        Curve(points=points)


def test_flops_are_the_density_and_say_so() -> None:
    cost: Cost = FlopsCost()
    assert cost.share("diagonal", 0.3) == cost.share("stripe", 0.3) == 0.3
    assert cost.share("multi-diagonal", 0.3, by_place=True) == 0.3
    assert cost.share("skip", 0.0) == 0.0
    assert cost.source == "FLOPs, nothing was timed"


def test_where_nothing_can_be_timed_flops_stand_in(
    kernels: FakeKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(trial: CostTrial) -> CostCurves:
        raise torch.OutOfMemoryError("full")

    for change, words in (
        ({"device": torch.device("meta")}, "nothing is timed on meta"),
        ({"dtype": torch.float64}, "float64 is not timed"),
    ):
        found = measured_cost(dataclasses.replace(CASE, **change), searches_per_call=0.1)
        assert found == FlopsCost(reason=words)
        assert words in found.source
    monkeypatch.setattr(CostTrial, "curves", full)
    found = measured_cost(CASE, searches_per_call=0.1)
    assert found.source == "FLOPs, nothing was timed (cpu has too little free memory)"
    assert not FILE.path.exists()


def test_a_named_backend_that_cannot_run_is_an_error(kernels: FakeKernels) -> None:
    with pytest.raises(BackendError, match="no-such"):
        measured(dataclasses.replace(CASE, backend="no-such"))


@pytest.mark.parametrize("cost", [FlopsCost(), "measured"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("diagnal", 0.5, False), "Did you mean 'diagonal'"),
        (("stripe", 0.5, True), "only multi-diagonal"),
        (("stripe", 1.5, False), "density=1.5"),
    ],
)
def test_costs_refuse(
    kernels: FakeKernels, cost: Any, arguments: tuple[str, float, bool], words: str
) -> None:
    mode, density, by_place = arguments
    asked = measured() if cost == "measured" else cost
    with pytest.raises(SparseError, match=words):
        asked.share(mode, density, by_place=by_place)


def test_measured_costs_survive_json(kernels: FakeKernels) -> None:
    cost = measured()
    assert MeasuredCost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
    assert "reference kernels" in cost.source
    with pytest.raises(SparseError, match="no measured costs"):
        MeasuredCost.from_dict({"curves": {}, "searches_per_call": 0.1})
    with pytest.raises(SparseError, match="searches_per_call=-1"):
        dataclasses.replace(cost, searches_per_call=-1)


def test_big_cases_are_made_small() -> None:
    big = dataclasses.replace(CASE, grid=TokenGrid(frames=21, height=16, width=24), head_dim=128)
    trial = CostTrial.of(big, "cpu")
    tokens = trial.case.grid.tokens
    assert trial.q.shape == (1, tokens, 1, 128)
    assert 4 * tokens**2 * 128 <= cost_trial.OPERATIONS["cpu"]
    assert (trial.case.grid.height, trial.case.grid.width) == (16, 24), "whole frames"
    assert CostTrial.of(CASE, "cpu").case == CASE


def test_true_kernels_give_curves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No fake: only that every kind of kernel runs and its result is the reordered one."""
    monkeypatch.setattr(cost_trial, "SECONDS", 0.0)
    trial = CostTrial.of(CASE, "gather")
    found = trial.curves()
    assert set(found.curves) == set(KINDS)
    assert all(share > 0 for curve in found.curves.values() for _, share in curve.points)
    full = masks("full", CASE)[0]
    plain, moved = (trial._call(full, reordered=r)() for r in (False, True))
    assert isinstance(plain, Tensor)
    assert isinstance(moved, Tensor)
    torch.testing.assert_close(moved, plain), "dense attention does not care for the order"
