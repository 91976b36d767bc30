"""The plain diffusion loss, against the levels' own reading of a model's output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian_ring import levels_of
from torch import Tensor

from sparsediff.distill.noise import Noise, over
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.prune.denoising_loss import denoising_loss

NOTHING = Conditions(positive={}, negative=None, batched=frozenset())


def denoiser_of(levels: Noise, answer: Tensor) -> Denoiser:
    def model(**told: Any) -> tuple[Tensor]:
        return (answer,)

    inputs = Inputs(shape=(4,), noisy_name="x", time_name="t", time_scale=1.0)
    return Denoiser(model=model, inputs=inputs, levels=levels)


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction", "sample"])
def test_the_target_is_what_the_levels_read_as_clean_and_noise(kind: str) -> None:
    """Split and target are each other's inverse, so no loss is left of a perfect answer."""
    torch.manual_seed(0)
    levels, clean, noise = levels_of(kind), torch.randn(3, 4), torch.randn(3, 4)
    time = torch.tensor([200.0, 500.0, 800.0])
    level = levels.at(time)
    target = levels.target(clean, noise, level)
    x = over(level.alpha, clean) * clean + over(level.sigma, clean) * noise
    found = levels.split(x, target, level)
    # Cleaning multiplies rounding by 1 / alpha, at most 5 here: a few hundred eps of values below 4.
    assert torch.allclose(found[0], clean, atol=1e-4)
    assert torch.allclose(found[1], noise, atol=1e-4)
    assert denoising_loss(denoiser_of(levels, target), clean, noise, time, NOTHING).max() == 0


def test_the_loss_is_each_samples_own_mean_square() -> None:
    levels = levels_of("flow")
    clean, noise = torch.zeros(2, 4), torch.ones(2, 4)
    answer = torch.tensor([[1.0, 1.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    loss = denoising_loss(
        denoiser_of(levels, answer), clean, noise, torch.tensor([10.0, 900.0]), NOTHING
    )
    assert loss.tolist() == [1.0, 0.0]
