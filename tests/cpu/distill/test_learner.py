"""Rates follow iterations, however often a role learns in one, and the settings, not a checkpoint."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from tiny_training import forget_accelerate, settings_of

from sparsediff.distill.training.learner import Learner


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    forget_accelerate()
    return Accelerator(cpu=True)


def rates(learner: Learner, accelerator: Accelerator, updates: int) -> list[float]:
    found = []
    for _ in range(updates):
        found.append(learner.optimizer.param_groups[0]["lr"])
        learner.parameters[0].grad = torch.ones(2)
        learner.update(accelerator)
    return found


def learner_of(rate: float, updates: int = 1, **changes: object) -> Learner:
    settings = settings_of(**changes)
    return Learner({"w": torch.nn.Parameter(torch.zeros(2))}, rate, settings, updates=updates)


@pytest.mark.parametrize("schedule", ["constant_with_warmup", "cosine", "linear"])
def test_updates_of_an_iteration_share_its_place_in_the_schedule(
    accelerator: Accelerator, schedule: str
) -> None:
    words = {"schedule": schedule, "iterations": 6, "warmup_iterations": 2}
    once = rates(learner_of(1e-2, **words), accelerator, 6)
    thrice = rates(learner_of(1e-2, updates=3, **words), accelerator, 18)
    assert thrice[::3] == pytest.approx(once)
    assert once[0] == 0.0
    assert max(once) == 1e-2


def test_a_new_rate_is_taken_at_its_place_in_the_schedule(accelerator: Accelerator) -> None:
    words = {"schedule": "linear", "iterations": 8, "warmup_iterations": 0}
    old = learner_of(1e-2, **words)
    rates(old, accelerator, 4)
    new = learner_of(1e-3, **words)
    new.optimizer.load_state_dict(old.optimizer.state_dict())
    new.schedule.load_state_dict(old.schedule.state_dict())
    assert new.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)
    new.take_rate()
    assert rates(new, accelerator, 2) == pytest.approx([5e-4, 1e-3 * 3 / 8])


def test_a_norm_that_is_not_finite_changes_nothing(accelerator: Accelerator) -> None:
    learner = learner_of(1e-2, warmup_iterations=0)
    learner.parameters[0].grad = torch.tensor([1.0, float("inf")])
    assert learner.update(accelerator) == float("inf")
    assert torch.equal(learner.parameters[0], torch.zeros(2))
    assert learner.optimizer.state_dict()["state"] == {}
    assert learner.schedule.last_epoch == 0
    assert learner.parameters[0].grad is None
