"""Masks learnt end to end: exact gradients through one draw, memory, and units of no use found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from held_memory import HeldMemory
from torch import Tensor
from toy_chain import (
    IDLE_HEADS,
    IDLE_NEURONS,
    TOKENS,
    WIDTH,
    ToyDenoiser,
    toy_chain,
    toy_conditions,
    toy_trainer,
    toy_units,
)

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.gates import gated
from sparsediff.prune.hard_concrete import HardConcrete
from sparsediff.prune.learning import chain as chain_module
from sparsediff.prune.learning.chain import distance
from sparsediff.prune.learning.gate_logits import GateLogits
from sparsediff.prune.learning.mask_trainer import MaskTrainer
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.structures import Cut, Structure

BATCH = Conditions.stack(toy_conditions()[:2])
NUMBERS = (7, 8)
NOISY = LearnSettings(damping=0.0, initial_logit=0.5)


def start() -> Tensor:
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def gradients(
    *, steps: int = 5, every: int = 1, keep: bool = False, anew: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Of the logits, and what reached the neurons' layer in every call; `anew` draws in each call."""
    chain = toy_chain(steps=steps, every=every)
    model = chain.model
    assert isinstance(model, ToyDenoiser)
    logits = GateLogits(toy_units(), NOISY)
    drawn, _ = logits(NUMBERS)
    calls = iter(range(10_000))
    values: Any = (lambda key: logits((next(calls),) * 2)[0][key]) if anew else drawn
    seen: list[Tensor] = []
    with gated(model, toy_units(), values):
        model.down.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        latents = chain.latents(start(), BATCH, keep=keep)
        distance(latents, torch.zeros_like(latents), "mse").backward()
    found = [value.grad for value in logits.logits if value.grad is not None]
    assert len(found) == 2
    return found, seen


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_gradients_are_those_of_the_chain_that_is_kept(every: int) -> None:
    """Bit for bit: the same operations on the same numbers."""
    wanted, once = gradients(keep=True)
    found, seen = gradients(every=every)
    assert all(float(value.abs().max()) > 0 for value in wanted)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert len(once) == 5 * 2  # with guidance
    twice = 5 * 2 * 2  # every step again
    groups = -(-5 // every)
    assert len(seen) == twice + (5 - groups) * 2  # and once more, but for the last of each group
    closed = seen[0] == 0
    assert closed.any()
    assert all(torch.equal(x == 0, closed) for x in seen)


def test_a_draw_in_every_call_gives_other_gradients() -> None:
    """So the test above would notice it."""
    wanted, _ = gradients(keep=True, anew=True)
    found, seen = gradients(anew=True)
    assert not torch.equal(seen[0] == 0, seen[-1] == 0)
    assert not any(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_sample_draws_the_same_wherever_it_is_computed() -> None:
    logits = GateLogits(toy_units(), NOISY)
    both, penalty = logits((3, 4))
    alone, _ = logits((4,))
    for key, gates in both.items():
        assert torch.equal(gates[1:], alone[key])
        assert not torch.equal(gates[0], gates[1])
    mean = sum(HardConcrete(damping=0).expected_l0(x).mean() for x in logits.logits)
    torch.testing.assert_close(penalty, mean)
    other = GateLogits(toy_units(), LearnSettings(damping=0.0, initial_logit=0.5, seed=1))
    assert not torch.equal(other((4,))[0]["ffn/down"], alone["ffn/down"])


def peak_bytes(steps: int, *, every: int = 1, keep: bool = False) -> int:
    """The most that the objective and its backward pass hold at once."""
    chain = toy_chain(steps=steps, every=every, guidance=1.0)
    logits = GateLogits(toy_units(), NOISY)
    x, wanted = start(), torch.zeros(2, TOKENS, WIDTH)
    with HeldMemory() as held:
        values, _ = logits(NUMBERS)
        with gated(chain.model, toy_units(), values):
            distance(chain.latents(x, BATCH, keep=keep), wanted, "mse").backward()
    return held.most


LATENT = 2 * TOKENS * WIDTH * 4  # bytes, fp32


@pytest.mark.parametrize("every", [1, 2, 5])
def test_memory_grows_by_a_part_of_a_latent_a_step(every: int) -> None:
    """Exactly the latents that are kept, one in `every`; by default one in two."""
    peaks = {steps: peak_bytes(steps, every=every) for steps in (10, 20, 40)}
    assert peaks[40] - peaks[20] == 20 * LATENT / every
    assert peaks[20] - peaks[10] == 10 * LATENT / every
    assert LearnSettings().latents_every == 2


def test_memory_of_a_chain_that_is_kept_grows_far_more() -> None:
    assert peak_bytes(20, keep=True) - peak_bytes(10, keep=True) > 10 * 10 * LATENT


def last(scores: Mapping[str, Tensor]) -> tuple[set[int], set[int]]:
    """As many units as are idle, those of the lowest scores: heads and neurons."""
    heads, neurons = scores["heads/out"], scores["ffn/down"]
    return (
        {*heads.argsort()[: len(IDLE_HEADS)].tolist()},
        {*neurons.argsort()[: len(IDLE_NEURONS)].tolist()},
    )


def learnt(trainer: MaskTrainer) -> Mapping[str, Tensor]:
    for _ in range(trainer.settings.iterations):
        trainer.train_iteration()
    return trainer.gates.scores().values


def test_units_of_no_use_are_ranked_last() -> None:
    trainer = toy_trainer()
    before = {name: value.clone() for name, value in trainer.chain.model.state_dict().items()}
    scores = learnt(trainer)
    assert last(scores) == ({*IDLE_HEADS}, {*IDLE_NEURONS})
    # Their gates are all but closed, and some others stay open.
    for key, idle in (("heads/out", IDLE_HEADS), ("ffn/down", IDLE_NEURONS)):
        assert float(scores[key][list(idle)].max()) < 0.5 < float(scores[key].max())
    after = trainer.chain.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_without_the_chains_gradient_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chain_module.Chain.latents

    def cut(self: Any, *args: Any, **words: Any) -> Tensor:
        latents = whole(self, *args, **words)
        return latents.detach() + 0 * latents

    monkeypatch.setattr(chain_module.Chain, "latents", cut)
    scores = learnt(toy_trainer())
    assert last(scores) != ({*IDLE_HEADS}, {*IDLE_NEURONS})


def test_distances_and_their_gradients() -> None:
    latents = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    wanted = torch.zeros(2, 2)
    assert float(distance(latents.detach(), wanted, "mse")) == pytest.approx(12.5 / 2)
    rms = distance(latents, wanted, "rms")
    assert rms.item() == pytest.approx(12.5**0.5 / 2)
    rms.backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, torch.tensor([[1.5, 2.0], [0.0, 0.0]]) / 12.5**0.5 / 2)


def test_masks_of_samples_whose_frames_are_folded_into_the_batch() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    model = torch.nn.ModuleDict({"out": layer})
    cut = Cut(module="out", side="in", width=1)
    unit = Structure(kind="ffn", path="out", units=2, cuts=(cut,))
    gates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.randn(6, 4, 2)  # three frames of each sample
    with gated(model, [unit], {"ffn/out": gates}):
        found = layer(x)
    wanted = torch.cat([layer(x[:3] * gates[0]), layer(x[3:] * gates[1])])
    assert torch.equal(found, wanted)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    trainer = toy_trainer()
    trainer.train_iteration()
    before = trainer.gates.scores().values
    with torch.no_grad():
        trainer.chain.model.up.bias.fill_(float("nan"))
    with pytest.raises(SparseError, match="nan at iteration 1"):
        trainer.train_iteration()
    after = trainer.gates.scores().values
    assert all(torch.equal(after[key], value) for key, value in before.items())
