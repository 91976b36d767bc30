"""Imitation: the student learns what the guided teacher gives where the student comes to."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_training import PROMPTS, training_of, watched

from sparsediff.distill.student.student_source import StudentSource
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.imitation_objective import ImitationObjective, Shown
from sparsediff.distill.training.objective import Samples
from sparsediff.distill.trajectory import roll_out

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


def test_a_student_with_guidance_is_rolled_out_as_its_pipeline_runs(tmp_path: Path) -> None:
    """What the pipeline makes of the student's own arguments, two predictions a step."""
    training = training_of(tmp_path, **SETTINGS, student_guidance=3.0, method=None)
    training.run()  # the adapters do something
    setup = training.setup
    assert setup.call["guidance_scale"] == 3.0
    student = Actors(setup=setup, conditions=setup.conditions[0]).student()
    calls: list[str] = []
    setup.model.register_forward_hook(lambda *_: calls.append("call"))
    first = torch.randn(1, *setup.inputs.shape, generator=torch.Generator().manual_seed(0))
    states = roll_out(student, setup.levels, setup.grid, first)
    assert len(calls) == 2 * setup.grid.steps
    with setup.roles.playing("student"), torch.no_grad():
        made = setup.pipe(prompt=PROMPTS[0], latents=first, output_type="latent", **setup.call)
    assert len(calls) == 4 * setup.grid.steps
    # A part in 2**23 is rounded off in both orders of summing; guidance multiplies that by 3 + 2, and
    # the second step's model and guidance the first's again, by less than 20 in all.
    close = 100 * 2**-23 * float(made.frames.abs().max())
    torch.testing.assert_close(states[-1].clean, made.frames, atol=close, rtol=0)
    with setup.roles.playing("student"), torch.no_grad():
        call = {**setup.call, "guidance_scale": 1.0}
        plain = setup.pipe(prompt=PROMPTS[0], latents=first, output_type="latent", **call)
    assert float((plain.frames - made.frames).abs().max()) > 0.1
    training.save()
    card = StudentSource.of(tmp_path).card()
    assert (card.guidance, card.teacher_guidance) == (3.0, 4.0)
    told = (tmp_path / "README.md").read_text()
    assert "steps that are run with guidance_scale 3" in told
    assert "guidance_scale=3)" in told
    assert "without guidance" not in told
    assert "no effect" not in told


def test_more_steps_of_the_teacher_are_another_target(tmp_path: Path) -> None:
    targets = []
    for count in (1, 2):
        training = training_of(tmp_path / str(count), **SETTINGS, teacher_steps=count)
        with watched(training) as counts:
            targets.append(shown(training)[1].clean)
        assert counts["teacher", "paused"] == 2 * count  # with the prompt and without
    assert not torch.allclose(*targets, atol=1e-2)
