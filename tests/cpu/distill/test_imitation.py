"""Imitation: the student learns what the guided teacher gives where the student comes to."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_training import training_of, watched

from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.imitation_objective import ImitationObjective, Shown
from sparsediff.distill.training.objective import Samples

SETTINGS = {
    "objective": "imitation",
    "segments": 2,
    "iterations": 30,
    "average": 0.0,
    "checkpoint_every": 0,
    "lora_rank": 8,
    "lora_alpha": 8.0,
}


def shown(training: Distillation) -> tuple[ImitationObjective, Shown]:
    """What the objective prepares of two samples that no iteration has."""
    objective = training.trainer.objective
    assert isinstance(objective, ImitationObjective)
    conditions = training.setup.conditions[0].select(torch.tensor([0, 0]))
    return objective, objective.prepare(Samples(numbers=(1000, 1001), conditions=conditions))


def test_the_target_is_the_dense_guided_teacher(tmp_path: Path) -> None:
    training = training_of(tmp_path, **SETTINGS)
    setup = training.setup
    with watched(training) as counts:
        _, part = shown(training)
    assert counts["student", "sparse"] > 0 == counts["teacher", "sparse"]
    assert part.clean.shape == part.state.x.shape == (4, *setup.inputs.shape)
    level = setup.levels.at(part.state.start)
    actors = Actors(setup=setup, conditions=part.conditions)
    plain = actors.teacher(guidance=1.0)(part.state.x, level)
    with setup.roles.playing("teacher"), torch.no_grad():
        negative = actors._denoise("teacher", negative=True)(part.state.x, level)[0]
    assert torch.allclose(part.clean, negative + 4.0 * (plain - negative), atol=1e-4)
    assert not torch.allclose(part.clean, plain, atol=1e-2)


def test_the_student_comes_nearer_and_the_fake_learns_nothing(tmp_path: Path) -> None:
    training = training_of(tmp_path, **SETTINGS)
    objective, part = shown(training)
    fake = {n: v.clone() for n, v in training.setup.roles.parameters("fake").items()}
    with torch.no_grad():
        before = float(objective._loss(part))
    training.run()
    with torch.no_grad():
        after = float(objective._loss(part))
    assert after < 0.7 * before  # 0.43 measured; 1 if nothing is learnt
    assert all(torch.equal(v, fake[n]) for n, v in training.setup.roles.parameters("fake").items())
    assert set(training.trainer.learners) == {"student"}
