"""Learnt 2:4 masks: the relaxation by its formulas, a toy with a known best, memory, the loop."""

from __future__ import annotations

import itertools
import json
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, is_tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsediff.distill.training.trainer import NotFiniteError
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import CANDIDATES, groups, kept_of
from sparsediff.prune.semi_structured.learnable_masks import LearnableMasks
from sparsediff.prune.semi_structured.mask_settings import MaskSettings
from sparsediff.prune.semi_structured.mask_training import MaskFigures, MaskTraining
from sparsediff.prune.semi_structured.memory_need import MemoryNeed
from sparsediff.prune.semi_structured.one_shot import magnitude_masks
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks
from sparsediff.prune.semi_structured.relaxation import (
    Draw,
    initial_gates,
    likely_choices,
    soft_mask,
    with_prior,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A linear layer must give for fixed inputs what it gives with all its weights."""

    layer: nn.Linear
    x: Tensor

    def prepare(self, iteration: int) -> Tensor:
        return self.layer(self.x)

    def loss(self, part: Tensor) -> Tensor:
        return (self.layer(self.x) - part).square().mean() / part.square().mean()


def cancelling() -> Regression:
    """Inputs 0 and 1 of every four are opposite: large weights that undo each other."""
    x = normal(256, 16, seed=1)
    x[:, 1::4] = 0.05 * x[:, 1::4] - x[:, 0::4]
    layer = nn.Linear(16, 3, bias=False)
    weight = 0.5 * normal(3, 16, seed=2)
    weight[:, 0::4] += 2
    weight[:, 1::4] += 2
    layer.weight.data = weight
    return Regression(layer=layer, x=x)


def error(task: Regression, kept: Tensor) -> float:
    weight = task.layer.weight.detach()
    exact = task.x @ weight.T
    return float((task.x @ (weight * kept).T - exact).square().mean() / exact.square().mean())


def least_error(task: Regression) -> float:
    """Of every row by itself the best of all 6⁴ masks."""
    weight, covariance = task.layer.weight.detach(), task.x.T @ task.x / len(task.x)
    choices = torch.tensor(list(itertools.product(range(6), repeat=4)))
    kept = CANDIDATES[choices].flatten(1)
    left_out = (weight[:, None, :] * ~kept).double()
    errors = torch.einsum("rci,ij,rcj->rc", left_out, covariance.double(), left_out)
    power = (task.x @ weight.T).square().mean() * len(weight)
    return float(errors.amin(dim=1).sum() / power)


QUICK = {"iterations": 250, "learning_rate": 2e-2, "final_learning_rate": 2e-3}


def test_soft_masks_sum_to_two() -> None:
    mask = soft_mask(normal(50, 6), "a", Draw(seed=1, kappa=1, tau=1))
    assert mask.shape == (50, 4)
    torch.testing.assert_close(mask.sum(dim=1), torch.full((50,), 2.0))
    assert bool(((mask > 0) & (mask < 1)).all())


def test_low_temperature_gives_hard_masks_by_the_gumbel_maximum() -> None:
    gates, draw = normal(200, 6), Draw(seed=3, kappa=2, tau=1e-4)
    mask = soft_mask(gates, "a", draw)
    hard = mask.round()
    # Of 200 groups the two best are seldom within 1e-3, which exp(-10) is left of.
    assert float((mask - hard).abs().amax(dim=1).median()) == 0
    assert torch.equal(hard.sum(dim=1), torch.full((200,), 2.0))


def test_drawn_candidates_are_as_likely_as_the_softmax_of_gates() -> None:
    gate = torch.tensor([1.0, 0.5, 0.0, -0.5, 0.3, 0.0])
    count = 20_000
    mask = soft_mask(gate.repeat(count, 1), "a", Draw(seed=0, kappa=2, tau=1e-4)).round()
    found = (mask[:, None, :] == CANDIDATES.float()).all(dim=-1).float().mean(dim=0)
    expected = (2 * gate).softmax(dim=0)
    # Five standard errors of a share of 20 000.
    allowed = 5 * (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= allowed).all())


def test_high_temperature_gives_halves() -> None:
    mask = soft_mask(normal(20, 6), "a", Draw(seed=0, kappa=1, tau=1e6))
    torch.testing.assert_close(mask, torch.full_like(mask, 0.5), atol=1e-4, rtol=0)


def test_a_draw_belongs_to_its_seed_and_layer() -> None:
    gates, draw = normal(9, 6), Draw(seed=1, kappa=1, tau=1)
    state = torch.get_rng_state()
    assert torch.equal(soft_mask(gates, "a", draw), soft_mask(gates, "a", draw))
    assert not torch.equal(soft_mask(gates, "a", draw), soft_mask(gates, "b", draw))
    other = Draw(seed=2, kappa=1, tau=1)
    assert not torch.equal(soft_mask(gates, "a", draw), soft_mask(gates, "a", other))
    assert torch.equal(torch.get_rng_state(), state)


def test_gates_begin_as_small_noise() -> None:
    gates = initial_gates("a", 5000, 0, torch.device("cpu"))
    # Of 30 000 values the standard deviation is known to 0.4 %: five times that.
    assert float(gates.std()) == pytest.approx(0.01, rel=0.02)
    assert gates.dtype == torch.float32
    assert not torch.equal(gates, initial_gates("b", 5000, 0, torch.device("cpu")))


def test_the_prior_raises_its_mask_by_the_formula() -> None:
    gates, choices = normal(6, 6), torch.arange(6)
    leant = with_prior(gates, choices, 3.0) - gates
    step = float(3 * gates.std())
    opposite = 5 - choices  # candidates are ordered so that n and 5 - n share nothing
    for group in range(6):
        expected = torch.zeros(6)
        expected[group], expected[opposite[group]] = step, -step
        torch.testing.assert_close(leant[group], expected)


def test_masks_begin_near_their_prior() -> None:
    """Logits kappa gate: +-3 for kappa 100, which is e³ / (e³ + e⁻³ + 4) = 0.83 without the noise."""
    layer = nn.Linear(400, 50)
    prior = magnitude_masks({"a": layer})
    masks = LearnableMasks({"a": layer}, seed=0, prior=prior)
    shares = (100 * masks.gates["a"].detach()).softmax(dim=1)
    of_prior = shares.gather(1, prior.choices["a"].flatten()[:, None].long())
    assert 0.7 < float(of_prior.mean()) < 0.83
    bare = LearnableMasks({"a": layer}, seed=0)
    agree = likely_choices(bare.gates["a"]) == prior.choices["a"].flatten()
    assert float(agree.float().mean()) == pytest.approx(1 / 6, abs=0.03)


def test_a_prior_of_another_shape_is_refused() -> None:
    layer = nn.Linear(8, 4)
    other = magnitude_masks({"a": nn.Linear(8, 5)})
    with pytest.raises(SparseError, match=r"choices \[5, 2\] for a"):
        LearnableMasks({"a": layer}, seed=0, prior=other)
    with pytest.raises(SparseError, match="no mask for b"):
        LearnableMasks({"b": layer}, seed=0, prior=other)


def test_layers_compute_with_the_drawn_mask_and_are_put_back() -> None:
    layer, draw = nn.Linear(8, 4), Draw(seed=1, kappa=1, tau=1)
    masks, x = LearnableMasks({"a": layer}, seed=0), normal(3, 5, 8)
    plain = layer(x)
    with masks.at_work(draw):
        found = layer(x)
    mask = soft_mask(masks.gates["a"], "a", draw).view(4, 8)
    torch.testing.assert_close(found, F.linear(x, layer.weight * mask, layer.bias))
    kept = (layer.weight * mask).square().sum() / layer.weight.square().sum()
    torch.testing.assert_close(masks.kept_share(draw), kept)
    assert torch.equal(layer(x), plain)
    assert "forward" not in vars(layer)


def test_gradients_are_those_of_the_plain_formula() -> None:
    layer, draw, x = nn.Linear(8, 4), Draw(seed=1, kappa=1, tau=1), normal(5, 8)
    masks = LearnableMasks({"a": layer}, seed=0)
    with masks.at_work(draw):
        layer(x).square().sum().backward()
    gates = masks.gates["a"].detach().clone().requires_grad_()
    mask = soft_mask(gates, "a", draw).view(4, 8)
    F.linear(x, layer.weight * mask, layer.bias).square().sum().backward()
    torch.testing.assert_close(masks.gates["a"].grad, gates.grad)


def test_learnt_masks_beat_magnitude_and_come_close_to_the_best() -> None:
    task = cancelling()
    magnitude = magnitude_masks({"": task.layer})
    training = MaskTraining(
        task.layer, {"": task.layer}, task, MaskSettings(**QUICK, seed=0), prior=magnitude
    )
    before = task.layer.weight.detach().clone()
    learnt = training.train()
    found, best = error(task, learnt.kept("")), least_error(task)
    assert torch.equal(groups(learnt.kept("")).sum(dim=-1), torch.full((3, 4), 2))
    assert found < error(task, magnitude.kept("")) / 2
    # The best itself, but for rounding: sums of 256 products in float32.
    assert found == pytest.approx(best, rel=1e-4)
    assert torch.equal(task.layer.weight, before)
    assert task.layer.weight.requires_grad
    assert task.layer.weight.grad is None


def test_the_reward_keeps_large_weights() -> None:
    """Of a loss that says nothing, the reward alone must end at magnitude's masks."""

    class Nothing:
        def prepare(self, iteration: int) -> None:
            return None

        def loss(self, part: None) -> Tensor:
            return torch.zeros(())

    layer = nn.Linear(32, 4)
    heard: list[MaskFigures] = []
    settings = MaskSettings(**(QUICK | {"iterations": 150}))
    training = MaskTraining(layer, {"": layer}, Nothing(), settings)
    learnt = training.train(heard.append)
    squares = layer.weight.detach().square()
    most = (squares * magnitude_masks({"": layer}).kept("")).sum()
    # Masks drawn at random keep half of all, which is 0.6 of the most for uniform weights.
    assert float((squares * learnt.kept("")).sum() / most) > 0.95
    assert heard[-1].kept_share > heard[0].kept_share + 0.1
    assert [one.iteration for one in heard] == [*range(1, 151)]


def test_schedules() -> None:
    settings = MaskSettings(iterations=11, kappa=(100, 500), tau=(4, 0.05), reward=0.1)
    assert (settings.draw(0).kappa, settings.draw(0).tau) == (100, 4)
    assert settings.draw(5).kappa == pytest.approx(300)
    assert settings.draw(5).tau == pytest.approx(2.025)
    assert settings.draw(10).kappa == pytest.approx(500)
    assert settings.draw(10).tau == pytest.approx(0.05)
    assert settings.rate(0) == pytest.approx(5e-4)
    assert settings.rate(10) == pytest.approx(5e-5)
    assert settings.reward_at(0) == 0.1
    assert settings.reward_at(11) == 0
    assert settings.draw(3).seed != settings.draw(4).seed


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"batch": True},
        {"kappa": (1,)},
        {"tau": (4, 0)},
        {"tau": "sharp"},
        {"learning_rate": 2},
        {"reward": -1},
        {"prior_strength": float("nan")},
        {"memory_gb": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SparseError, match=next(iter(wrong))):
        MaskSettings(**wrong)


def test_settings_as_json() -> None:
    settings = MaskSettings(iterations=7, tau=(3, 0.1))
    plain = json.loads(json.dumps(settings.to_dict()))
    assert MaskSettings.from_dict(plain, source="x") == settings
    with pytest.raises(SparseError, match="x has an unknown setting 'kapa'"):
        MaskSettings.from_dict({"kapa": 1}, source="x")


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    task = cancelling()
    broken = Regression(layer=task.layer, x=task.x * float("nan"))
    training = MaskTraining(task.layer, {"": task.layer}, broken, MaskSettings(iterations=3))
    with pytest.raises(NotFiniteError, match="nan at iteration 0"):
        training.train()
    assert task.layer.weight.requires_grad
    assert "forward" not in vars(task.layer)


class LivePeak(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {
            one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if is_tensor(one)
        }
        for one in filter(is_tensor, tree_leaves(out)):
            storage = one.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.live and key not in given:  # views and changes in place take nothing
                self.live[key] = size
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, key)
        return out

    def _gone(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)


def trained_once(layers: dict[str, nn.Linear]) -> tuple[MaskTraining, int]:
    model = nn.Sequential(*layers.values())
    x = normal(1, layers["0"].in_features).to(layers["0"].weight.dtype)

    class Output:
        def prepare(self, iteration: int) -> None:
            return None

        def loss(self, part: None) -> Tensor:
            return model(x).square().mean()

    training = MaskTraining(model, layers, Output(), MaskSettings(iterations=2))
    training._iterate()  # gradients and moments are there from now on
    with LivePeak() as seen:
        training._iterate()
    return training, seen.peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_what_tensors_really_take(dtype: torch.dtype) -> None:
    layers = {str(n): nn.Linear(256, 256, dtype=dtype) for n in range(4)}
    need = MemoryNeed.of(layers)
    training, peak = trained_once(layers)
    gates = [*training.masks.gates.values()]
    moments = [
        value
        for state in training.optimizer.state.values()
        for name, value in state.items()
        if name.startswith("exp_avg")
    ]
    held = [*gates, *(gate.grad for gate in gates), *moments]
    assert len(moments) == 2 * len(gates)
    assert need.kept == sum(one.nbytes for one in held if one is not None)
    assert need.kept == 24 * sum(layer.weight.numel() for layer in layers.values())
    # Gradients are made anew inside, and are counted as kept; the rest is the working memory. Gradients
    # of biases and activations of one token are less than a hundredth of it.
    working = peak - sum(gate.nbytes for gate in gates)
    assert working == pytest.approx(need.total - need.kept, rel=0.01)


def test_training_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"0": nn.Linear(256, 256)}
    need = MemoryNeed.of(layers)
    just, less = (MaskSettings(memory_gb=need.total / 1e9 + one) for one in (1e-9, -1e-9))
    MaskTraining(layers["0"], layers, cancelling(), just)
    monkeypatch.setattr(LearnableMasks, "__init__", lambda *a, **k: pytest.fail("gates were made"))
    with pytest.raises(SparseError, match="Name fewer layers by a pattern"):
        MaskTraining(layers["0"], layers, cancelling(), less)


def test_export_is_the_largest_gate() -> None:
    layer = nn.Linear(8, 2)
    masks = LearnableMasks({"a": layer}, seed=0)
    wanted = torch.tensor([[5, 0], [2, 3]], dtype=torch.uint8)
    masks.gates["a"].data = F.one_hot(wanted.flatten().long(), 6).float()
    exported = masks.export()
    assert isinstance(exported, SemiStructuredMasks)
    assert torch.equal(exported.choices["a"], wanted)
    assert torch.equal(exported.kept("a"), kept_of(wanted))
