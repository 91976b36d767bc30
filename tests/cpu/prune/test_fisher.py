"""Fisher information of gates: the chain's own derivatives, units of no use, starts, processes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from fresh_accelerate import forget_accelerate
from tiny_learning import killed_in_the_fourth, learning_of, learnt
from torch import Tensor
from toy_chain import (
    IDLE_HEADS,
    IDLE_NEURONS,
    toy_chain,
    toy_conditions,
    toy_trainer,
    toy_units,
)
from training_processes import in_processes

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.training.sample_order import SampleOrder
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.gates import gated
from sparsediff.prune.learning.chain import Chain, distance
from sparsediff.prune.learning.fisher import Along, check_along, fisher_information
from sparsediff.prune.learning.gate_logits import GateLogits, ranks
from sparsediff.prune.learning.mask_trainer import MaskTrainer
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.scores import Scores

SIZES = [one.units for one in toy_units()]


def order_of(chain: Chain, batch: int = 1) -> SampleOrder:
    forget_accelerate()
    settings = LearnSettings(batch=batch, accumulation=1, seed=3)
    return SampleOrder(toy_conditions(), settings, Accelerator(cpu=True))


def found(chain: Chain, draws: int, *, batch: int = 1, along: Along = "noise") -> Tensor:
    """Scores ``[units]``, heads before neurons."""
    order = order_of(chain, batch)
    scores = fisher_information(chain, toy_units(), order, draws=draws, along=along)
    return torch.cat([scores.values[one.key] for one in toy_units()])


def jacobian(
    chain: Chain, order: SampleOrder, number: int, *, by_prompt: bool = False
) -> tuple[Tensor, Tensor]:
    """Of the final latents by open gates ``[numbers, units]``, all activations kept; and v."""
    draws = Draws([seed_of(3, "fisher", number)])
    x = draws.normal(torch.empty(1, *chain.inputs.shape))
    samples = order.samples(number, 0)
    conditions = samples.conditions

    def latents(flat: Tensor) -> Tensor:
        parts = zip(toy_units(), flat.split(SIZES), strict=True)
        with gated(chain.model, toy_units(), {one.key: part[None] for one, part in parts}):
            return chain.latents(x, conditions, keep=True).flatten()

    by_gates = torch.autograd.functional.jacobian(latents, torch.ones(sum(SIZES)))
    assert isinstance(by_gates, Tensor)
    if by_prompt:
        other = order.other_prompts(samples)
        assert not torch.equal(other.positive["told"], conditions.positive["told"])
        v = chain.latents(x, conditions) - chain.latents(x, other)
    else:
        v = draws.normal(x)
    return by_gates, v.flatten()


@pytest.mark.parametrize(
    ("along", "by_prompt"),
    [("noise", (False, False)), ("prompts", (True, True)), ("both", (False, True))],
)
def test_scores_are_shares_of_squared_derivatives(along: Along, by_prompt: Sequence[bool]) -> None:
    """Two samples by hand, from the whole Jacobian of a chain that keeps its activations."""
    chain = toy_chain()
    order = order_of(chain)
    wanted = torch.zeros(sum(SIZES))
    for number in (0, 1):
        by_gates, v = jacobian(chain, order, number, by_prompt=by_prompt[number])
        squares = (v @ by_gates).square().split(SIZES)
        wanted += torch.cat([part / part.sum() * len(part) for part in squares]) / 2
    for batch in (1, 2):
        scores = found(chain, 2, batch=batch, along=along)
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-6)


def test_where_all_gates_are_open_the_distance_says_nothing() -> None:
    """Which is why its curvature is asked for: of all units that are of use it is above 0."""
    chain = toy_chain()
    order = order_of(chain)
    x = torch.randn(1, *chain.inputs.shape, generator=torch.Generator().manual_seed(0))
    conditions = order.samples(0, 0).conditions
    gates = {one.key: torch.ones(1, one.units, requires_grad=True) for one in toy_units()}
    with torch.no_grad():
        dense = chain.latents(x, conditions)
    with gated(chain.model, toy_units(), gates):
        distance(chain.latents(x, conditions), dense, "mse").backward()
    assert all(not value.grad.any() for value in gates.values() if value.grad is not None)
    scores = found(chain, 4)
    idle = torch.zeros(sum(SIZES), dtype=torch.bool)
    idle[[*IDLE_HEADS, *(SIZES[0] + one for one in IDLE_NEURONS)]] = True
    assert not scores[idle].any()
    assert bool((scores[~idle] > 0).all())


def test_many_draws_tend_to_the_squared_distance_of_each_unit() -> None:
    """Of 300 draws an estimate is sqrt(2 / 300) = 8 % off, and two neurons are as near: one swap."""
    chain = toy_chain()
    order = order_of(chain)
    exact = sum(jacobian(chain, order, number)[0].square().sum(0) for number in range(3))
    assert isinstance(exact, Tensor)
    for wanted, scores in zip(exact.split(SIZES), found(chain, 300).split(SIZES), strict=True):
        both = torch.stack([ranks(wanted), ranks(scores)])
        swapped = 1 - 12 / (len(wanted) * (len(wanted) ** 2 - 1))  # Spearman's, two neighbours
        assert float(torch.corrcoef(both)[0, 1]) > swapped - 1e-4


def test_a_sample_whose_chain_carries_further_counts_as_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, wanted = Chain.latents, found(toy_chain(), 2, batch=2)

    def further(self: Chain, *args: Any, **words: Any) -> Tensor:
        latents = whole(self, *args, **words)
        return latents * torch.tensor([1000.0, 1.0]).view(2, 1, 1)

    monkeypatch.setattr(Chain, "latents", further)
    torch.testing.assert_close(found(toy_chain(), 2, batch=2), wanted, rtol=1e-4, atol=1e-6)


def test_draws_are_told_and_rounded_up_to_batches() -> None:
    chain, told = toy_chain(), list[int]()
    args = chain, toy_units(), order_of(chain, 2)
    scores = fisher_information(*args, draws=3, tell=told.append)
    assert told == [2, 3]
    four = fisher_information(*args, draws=4)
    assert all(torch.equal(four.values[key], value) for key, value in scores.values.items())


def test_what_is_not_finite_is_an_error() -> None:
    chain = toy_chain()
    with torch.no_grad():
        chain.model.get_parameter("up.bias").fill_(float("nan"))
    with pytest.raises(SparseError, match="not finite"):
        found(chain, 1)


def test_prompts_that_are_compared_must_differ(tmp_path: Path) -> None:
    """Said before a folder is written, which would stand in the way of the next try."""
    for prompts, said in ((["a"], "there is one"), (["a", "b", "a"], "'a' is there twice")):
        with pytest.raises(
            SparseError, match=rf"fisher_along='both' compares.*{said}.*use 'noise'"
        ):
            check_along("both", prompts)
        check_along("noise", prompts)
    check_along("prompts", ["a", "b"])
    with pytest.raises(SparseError, match="there is one"):
        learning_of(tmp_path / "out", prompts=["a"], **START)
    assert not (tmp_path / "out").exists()


def test_units_of_which_none_is_of_use_are_an_error() -> None:
    chain = toy_chain()
    with torch.no_grad():
        chain.model.get_parameter("down.weight").zero_()
    with pytest.raises(SparseError, match="do not depend on any of the ffn"):
        found(chain, 1)


def test_another_prompt_is_never_ones_own() -> None:
    order = order_of(toy_chain())
    told = []
    for number in range(30):
        samples = order.samples(number, 0)
        other = order.other_prompts(samples).positive["told"]
        assert not torch.equal(other, samples.conditions.positive["told"])
        told.append((samples.conditions.positive["told"], other))
    pairs = {(float(one.sum()), float(other.sum())) for one, other in told}
    assert len(pairs) == 6  # every pair of three, in both orders


def test_ranks() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert ranks(torch.tensor([1.0, 1.0, 2.0])).tolist() == [0.5, 0.0, 1.0]
    assert ranks(torch.tensor([7.0])).tolist() == [0.5]


def test_logits_start_spread_by_rank_within_a_kind() -> None:
    settings = LearnSettings(start="fisher", initial_logit=1.0, start_spread=6.0)
    gates = GateLogits(toy_units(), settings)
    heads = torch.tensor([0.1, 0.4, 0.3, 0.2])
    gates.start_from(Scores(values={"heads/out": heads, "ffn/down": torch.arange(10.0)}))
    assert gates.named()["heads/out"].tolist() == pytest.approx([-2, 4, 2, 0], abs=1e-6)
    wanted = [-2 + 6 * n / 9 for n in range(10)]
    assert gates.named()["ffn/down"].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_training_starts_from_it_and_keeps_units_of_no_use_last() -> None:
    trainer = toy_trainer(start="fisher", fisher_draws=8, iterations=1)
    trainer.start(lambda done: None)
    before = trainer.gates.scores().values
    for key, idle in (("heads/out", IDLE_HEADS), ("ffn/down", IDLE_NEURONS)):
        assert {*before[key].argsort()[: len(idle)].tolist()} == {*idle}
    trainer.train_iteration()
    after = trainer.gates.scores().values
    assert not any(torch.equal(after[key], value) for key, value in before.items())


def test_an_even_start_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy_trainer()
    monkeypatch.setattr(Chain, "latents", lambda *args, **words: pytest.fail("a chain was run"))
    trainer.start(lambda done: None)
    assert all(bool((value == 2).all()) for value in trainer.gates.scores().values.values())


START = {"start": "fisher", "fisher_draws": 4}


def test_two_processes_divide_the_draws(tmp_path: Path) -> None:
    """Sums of the same shares in another order: the same ranks, which are what is taken of them."""
    words: dict[str, Any] = {
        **START,
        "iterations": 1,
        "warmup_iterations": 5,
    }  # the rate is all but 0
    words["checkpoint_every"] = 0
    assert in_processes(learnt, tmp_path, tmp_path / "one", batch=2, **words) == [0]
    _, alone, wanted = torch.load(tmp_path / "0.pt")
    assert in_processes(learnt, tmp_path, tmp_path / "two", count=2, batch=1, **words) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert (alone, first[1], second[1]) == (1, 2, 2)
    for key, value in wanted.items():
        assert torch.equal(first[2][key], second[2][key])
        assert len({*value.tolist()}) == value.numel()  # all of one kind are apart
        assert torch.equal(first[2][key].argsort(), value.argsort())


def test_gone_on_with_it_does_not_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = learning_of(tmp_path / "whole", **START).run().values
    assert in_processes(killed_in_the_fourth, tmp_path / "out", **START) == [-signal.SIGKILL]
    learning = learning_of(tmp_path / "out", resume="latest", **START)
    assert learning.trainer.iteration == 2
    monkeypatch.setattr(MaskTrainer, "start", lambda *args: pytest.fail("it started again"))
    after = learning.run().values
    assert all(torch.equal(after[key], value) for key, value in wanted.items())
