"""Budgets that only runs can tell: the figures are made up where the toy model has none to speak of."""

import math

import pytest
import torch

from sparsediff.pattern_search import budget_search
from sparsediff.pattern_search.watch import SearchStopped, Watch


@pytest.fixture
def made_up(monkeypatch):
    """Probes whose figures follow the density of the plan; counts them."""
    counted = []

    def psnr_probe(runner, units, prompt, method, backend, *, keep_frames):
        counted.append(prompt)
        assert keep_frames == (prompt == 0)
        assert units.load("profile", prompt, only=("frames",))["frames"].shape == (9, 96, 96, 3)
        figure = 40 + 10 * math.log(method.density)
        return {"psnr": torch.tensor(figure, dtype=torch.float64)}

    def speed_probe(runner, method, backend):
        counted.append("speed")
        sparse = torch.tensor([0.4 + 0.6 * method.density], dtype=torch.float64)
        return {"dense": torch.ones(1, dtype=torch.float64), "sparse": sparse}

    monkeypatch.setattr(budget_search.probes, "psnr_probe", psnr_probe)
    monkeypatch.setattr(budget_search.probes, "speed_probe", speed_probe)
    return counted


def test_the_cheapest_plan_of_a_psnr(with_budget, made_up):
    found = with_budget("psnr", 31)
    assert found.limit is None
    assert found.plan.evidence.psnr >= 31
    exact = math.exp((31 - 40) / 10)
    assert exact <= found.choice.density < exact + 0.15
    assert set(made_up) == {0, 1, 2}
    assert len(made_up) % 3 == 0


def test_the_densest_plan_of_a_speed(with_budget, made_up):
    found = with_budget("speedup", 1.4)
    assert found.limit is None
    assert found.plan.evidence.speedup >= 1.4
    exact = (1 / 1.4 - 0.4) / 0.6
    assert exact - 0.15 < found.choice.density <= exact
    assert made_up.count("speed") > 1
    assert made_up[-3:] == [0, 1, 2]  # and the PSNR of the plan that was found
    assert found.plan.evidence.psnr == pytest.approx(40 + 10 * math.log(found.choice.density))


def test_a_psnr_that_no_sparse_plan_has_gives_the_dense_plan(with_budget, made_up):
    found = with_budget("psnr", 60)
    assert found.limit.startswith(
        "only full attention has 60 dB for sure: the best that was run has"
    )
    assert found.modes == {"full": 12}
    assert not found.to_dict()["met"]


def test_a_speed_that_no_plan_has_gives_the_fastest(with_budget, made_up):
    found = with_budget("speedup", 9)
    assert found.limit.startswith("no plan is 9 times as fast as dense: the fastest, chosen here,")
    assert found.choice.density == min(probe.density for probe in found.probes)
    assert found.plan.evidence.speedup < 9


def test_a_density_that_no_plan_has_gives_the_cheapest(with_budget):
    found = with_budget("density", 0.02)
    assert found.limit.startswith(
        "no plan has a density of 0.02: the cheapest patterns of every head"
    )
    assert 0.02 < found.choice.density < 0.5


def test_probes_are_saved_and_not_made_again(with_budget, made_up):
    with pytest.raises(SearchStopped):
        with_budget("psnr", 31, Watch(stop=lambda: len(made_up) >= 2))
    assert made_up == [0, 1]
    found = with_budget("psnr", 31)
    # The plan of the first probe is the one of the finished search, which has been run already.
    assert sorted(made_up) == sorted([0, 1, 2] * (len(found.probes) - 1))


def test_when_the_time_is_up_between_probes_the_plan_is_the_best_so_far(with_budget, made_up):
    watch = Watch(max_minutes=1, clock=lambda: 61.0 if len(made_up) >= 3 else 0.0)
    found = with_budget("psnr", 20, watch)
    assert len(found.probes) == 2  # the first one was known
    assert found.limit == "the time was up: a better plan may meet the budget too"
    assert found.plan.evidence.psnr >= 20


def test_real_probes(with_budget):
    """Random weights: no figure means anything here, but every path runs."""
    found = with_budget("psnr", 5)
    assert found.plan.evidence.psnr > 5
    assert all(probe.figure < 100 for probe in found.probes)  # never the dense video
    fast = with_budget("speedup", 50)
    assert fast.probes
    assert all(0.01 < probe.figure < 50 for probe in fast.probes)
