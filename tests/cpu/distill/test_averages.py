"""The averaged weights: diffusers' own moving average, and what the saved student has."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from tiny_training import training_of

from sparsediff.distill.training.averages import Averages


def test_they_are_diffusers_moving_average() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(4))
    averages = Averages({"weight": weight}, 0.9)
    stock = EMAModel([weight], decay=0.9)
    expected = weight.detach().clone()
    for step in range(1, 40):
        weight.data += torch.randn(4, generator=generator)
        averages.follow()
        stock.step([weight])
        # EMAModel's warm-up, which forgets the beginning sooner.
        decay = 0.0 if step == 1 else min(0.9, step / (9 + step))
        expected += (1 - decay) * (weight.detach() - expected)
    now = weight.detach().clone()
    with averages.in_place():
        assert torch.equal(weight, stock.shadow_params[0])
        # 40 sums of values below 16, each rounded to half an ulp, in another order.
        torch.testing.assert_close(weight.detach(), expected, atol=40 * 16 * 2.0**-24, rtol=0)
        assert not torch.equal(weight, now)
    assert torch.equal(weight, now)


def saved(folder: Path) -> dict[str, torch.Tensor]:
    weights = load_file(folder / "pytorch_lora_weights.safetensors")
    return {name.removeprefix("transformer."): value for name, value in weights.items()}


def test_the_saved_student_has_the_averages(tmp_path: Path) -> None:
    training = training_of(tmp_path, iterations=3, average=0.9, checkpoint_every=0)
    training.run()
    training.save()
    parameters = training.setup.roles.parameters("student")
    averages = dict(zip(parameters, training.averages.kept.shadow_params, strict=True))
    found = saved(tmp_path)
    assert len(found) == len(averages)
    for name, value in averages.items():
        assert torch.equal(found[name.replace(".student", "")], value)
    assert any(not torch.equal(parameters[name], value) for name, value in averages.items())


def test_none_saves_the_weights_themselves(tmp_path: Path) -> None:
    training = training_of(tmp_path, iterations=2, average=0.0, checkpoint_every=0)
    training.run()
    training.save()
    found = saved(tmp_path)
    for name, value in training.setup.roles.parameters("student").items():
        assert torch.equal(found[name.replace(".student", "")], value)
