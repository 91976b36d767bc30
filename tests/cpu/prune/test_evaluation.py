"""The loss of masked models: fixed noise, nothing of the dense model changed."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tiny_pipelines import wan
from torch import Tensor
from toy_structures import hooks

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import noise_of
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.denoising_loss import denoising_loss
from sparsediff.prune.evaluation import evaluated, own_samples
from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import Structure, structures_of

CALL = {"height": 16, "width": 16, "num_frames": 1, "max_sequence_length": 16}


@cache
def recorded() -> tuple[Denoiser, list[Structure], list[Conditions]]:
    pipe = wan(layers=1)
    recorder = ConditionRecorder(pipe, pipe.transformer, CALL, steps=2, guidance=3.0)
    levels = noise_of(recorder.scheduler)
    denoiser = Denoiser(model=pipe.transformer, inputs=recorder.inputs, levels=levels)
    conditions = [recorder.record(prompt) for prompt in ("a red circle", "two blue squares")]
    return denoiser, structures_of(pipe.transformer), conditions


def masks_of(structures: list[Structure], kept: int) -> Masks:
    """So many units of every structure stay, the first ones."""
    return Masks(kept={one.key: torch.arange(one.units) < kept for one in structures})


def clean() -> Tensor:
    denoiser, _, conditions = recorded()
    shape = (len(conditions), *denoiser.inputs.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_masks_that_take_nothing_cost_nothing_and_others_do() -> None:
    denoiser, structures, conditions = recorded()
    named = {"all": masks_of(structures, 99), "one": masks_of(structures, 1)}
    found = evaluated(denoiser, structures, named, conditions, clean())
    assert found["all"].loss == found["all"].dense
    assert found["all"].distance == 0
    assert found["one"].distance > 1e-4
    assert found["one"].loss != found["one"].dense == found["all"].dense
    assert hooks(denoiser.model) == 0
    assert found == evaluated(denoiser, structures, named, conditions, clean())
    other = evaluated(denoiser, structures, named, conditions, clean(), seed=1)
    assert other["one"].loss != found["one"].loss


def test_the_dense_loss_is_the_plain_one() -> None:
    """At 0.5 of 1000 training steps, with the noise that belongs to the sample."""
    denoiser, structures, conditions = recorded()
    told = conditions[:1]
    found = evaluated(
        denoiser, structures, {"a": masks_of(structures, 1)}, told, clean()[:1], times=[0.5]
    )
    noise = Draws([seed_of("evaluation", "noise", 0, 0)]).normal(clean()[:1])
    with torch.no_grad():
        plain = denoising_loss(denoiser, clean()[:1], noise, torch.tensor([500.0]), told[0])
    # Means in another order of the same fp32 numbers.
    assert found["a"].dense == pytest.approx(float(plain), rel=1e-5)


def test_own_samples_are_what_the_chain_makes() -> None:
    denoiser, _, conditions = recorded()
    grid = StepGrid(times=(1000.0, 500.0, 0.0))
    made = own_samples(denoiser, conditions, grid, guidance=3.0)
    assert made.shape == clean().shape
    assert torch.equal(made, own_samples(denoiser, conditions, grid, guidance=3.0))
    assert not torch.equal(made, own_samples(denoiser, conditions, grid))  # guidance counts
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": []}, "2 clean samples, 0 conditions"),
        ({"times": []}, "0 times"),
        (
            {"masks": {"a": Masks(kept={"heads/x": torch.ones(1, dtype=torch.bool)})}},
            "no structure",
        ),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    denoiser, structures, conditions = recorded()
    values: dict[str, Any] = {
        "masks": {"a": masks_of(structures, 1)},
        "conditions": conditions,
        "clean": clean(),
    }
    with pytest.raises(SparseError, match=message):
        evaluated(denoiser, structures, **(values | changes))
