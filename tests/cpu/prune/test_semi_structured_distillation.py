"""Learning masks of a real pipeline from its own outputs, at toy size."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from tiny_pipelines import wan, wan22

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.layers import masked_layers
from sparsediff.prune.semi_structured.mask_comparison import mask_losses
from sparsediff.prune.semi_structured.mask_settings import MaskSettings
from sparsediff.prune.semi_structured.mask_training import MaskFigures, MaskTraining
from sparsediff.prune.semi_structured.one_shot import magnitude_masks
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks
from sparsediff.prune.semi_structured.relaxation import Draw
from sparsediff.prune.semi_structured.self_distillation import SelfDistillation

CALL = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}
PROMPTS = ["a red circle", "a blue ring"]
SETTINGS = MaskSettings(iterations=3, batch=2, learning_rate=1e-2, final_learning_rate=1e-3)


@pytest.fixture(scope="module")
def lesson() -> SelfDistillation:
    pipe = wan(layers=1)
    pipe.set_progress_bar_config(disable=True)
    scheduler = pipe.scheduler
    made = SelfDistillation.of(pipe, PROMPTS, SETTINGS, call=CALL, steps=2)
    assert pipe.scheduler is scheduler
    return made


def test_a_sample_of_every_prompt(lesson: SelfDistillation) -> None:
    assert lesson.clean.shape == (2, *lesson.denoiser.inputs.shape)
    assert bool(lesson.clean.isfinite().all())
    assert not torch.equal(lesson.clean[0], lesson.clean[1])


def test_batches_belong_to_seed_and_number(lesson: SelfDistillation) -> None:
    with torch.no_grad():
        one, same, other = (lesson.prepare(number) for number in (4, 4, 5))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.taught, same.taught)
    assert not torch.equal(one.x, other.x)
    assert one.x.shape == (2, *lesson.denoiser.inputs.shape)
    with torch.no_grad():
        sides = {lesson.prepare(number).negative for number in range(12)}
    assert sides == {True, False}


def test_without_masks_there_is_nothing_to_learn(lesson: SelfDistillation) -> None:
    with torch.no_grad():
        part = lesson.prepare(0)
        assert float(lesson.loss(part)) == 0
        nothing = dataclasses.replace(part, taught=1000 * part.taught)
        assert float(lesson.loss(nothing)) == pytest.approx(1, abs=0.01)


def test_masks_are_learnt_and_weights_stay(lesson: SelfDistillation) -> None:
    model = lesson.denoiser.model
    before = copy.deepcopy(model.state_dict())
    layers = masked_layers(model)
    prior = magnitude_masks(layers)
    training = MaskTraining(model, layers, lesson, SETTINGS, prior=prior)
    begun = {path: gates.detach().clone() for path, gates in training.masks.gates.items()}
    heard: list[MaskFigures] = []
    masks = training.train(heard.append)
    assert len(heard) == 3
    # Soft masks of halves keep a quarter of the squares.
    assert all(0 < one.loss < 1 and 0.25 < one.kept_share < 1 for one in heard)
    assert all(not torch.equal(gates, begun[p]) for p, gates in training.masks.gates.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    masks.check(model)
    again = MaskTraining(model, layers, lesson, SETTINGS, prior=prior).train()
    assert all(torch.equal(again.choices[path], one) for path, one in masks.choices.items())


def test_masks_are_compared_on_the_same_unseen_lessons(lesson: SelfDistillation) -> None:
    model = lesson.denoiser.model
    before = copy.deepcopy(model.state_dict())
    best = magnitude_masks(masked_layers(model))
    worst = SemiStructuredMasks(choices={path: 5 - one for path, one in best.choices.items()})
    found = mask_losses(model, lesson, {"best": best, "worst": worst, "again": best}, batches=2)
    assert 0 < found["best"] < found["worst"]
    assert found["again"] == found["best"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_checkpointed_blocks_give_the_same_gradients(lesson: SelfDistillation) -> None:
    """Masks are drawn alike in the second forward, or the gradient would be of another model."""
    model = lesson.denoiser.model
    training = MaskTraining(model, masked_layers(model), lesson, SETTINGS)
    with torch.no_grad():
        part = lesson.prepare(0)

    def gradients() -> list[torch.Tensor]:
        with training.masks.at_work(Draw(seed=1, kappa=10, tau=1)):
            loss = lesson.loss(part)
            return list(torch.autograd.grad(loss, [*training.masks.gates.values()]))

    plain = gradients()
    model.enable_gradient_checkpointing()
    try:
        again = gradients()
    finally:
        model.disable_gradient_checkpointing()
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one, other)
        assert float(one.abs().max()) > 0


def test_pipelines_with_two_models_are_refused() -> None:
    with pytest.raises(SparseError, match="2 models that can be pruned"):
        SelfDistillation.of(wan22(), PROMPTS, SETTINGS, call=CALL)


def test_prompts_are_needed(lesson: SelfDistillation) -> None:
    with pytest.raises(SparseError, match="prompts is empty"):
        SelfDistillation.of(wan(layers=1), [], SETTINGS, call=CALL)
