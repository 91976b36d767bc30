"""Inputs of layers: exact sums, weights of the steps, and nothing left behind."""

from __future__ import annotations

from math import log

import pytest
import torch
from tiny_pipelines import wan
from tiny_pipelines.unet import stable_diffusion
from toy_structures import ToyModel, hooks, toy_subject

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.calibration import layer_inputs, step_weight
from sparsediff.prune.structures import structures_of
from sparsediff.prune.subject import Subject

TOKENS = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.0, 1.0], [2.0, 0.0]]])  # [2, 2, 2]


def test_sums_by_hand() -> None:
    """Prompts of length 1 and 2, two steps each: squares times 2 * (1 + 4), 2 * 2 * 4 tokens."""
    subject = toy_subject(ToyModel(), TOKENS, prompts=("a", "aa"))
    found = layer_inputs(subject, ["up.0"])
    assert found.squares["up.0"].tolist() == [10 * 14.0, 10 * 21.0]
    assert found.squares["up.0"].dtype == torch.float64
    assert found.tokens["up.0"] == 16
    torch.testing.assert_close(found.norms("up.0"), torch.tensor([8.75, 13.125]).sqrt())


def test_steps_weigh_less_and_less() -> None:
    assert [step_weight(k, 3) for k in range(3)] == [
        pytest.approx(1.2),
        pytest.approx(0.8 + 0.4 * log(2) / log(3)),
        pytest.approx(0.8),
    ]
    assert step_weight(0, 1) == 1
    subject = toy_subject(ToyModel(), TOKENS, prompts=("a", "a"), call={"num_inference_steps": 3})
    found = layer_inputs(subject, ["up.0"], step_weights="log")
    weights = 2 * sum(step_weight(k, 3) for k in range(3))
    assert found.tokens["up.0"] == pytest.approx(4 * weights)
    assert found.squares["up.0"].tolist() == pytest.approx([14 * weights, 21 * weights])


def test_later_layers_see_what_the_earlier_give() -> None:
    model = ToyModel()
    found = layer_inputs(toy_subject(model, TOKENS), ["down.0"])
    seen = model.up[0](TOKENS).detach().double()
    torch.testing.assert_close(
        found.squares["down.0"], 2 * seen.square().sum((0, 1)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("call", [{}, {"fail": True}])
def test_nothing_is_left(call: dict[str, bool]) -> None:
    model = ToyModel()
    subject = toy_subject(model, TOKENS, call=call)
    if call:
        with pytest.raises(RuntimeError, match="out of memory"):
            layer_inputs(subject, ["up.0", "down.1"])
    else:
        layer_inputs(subject, ["up.0", "down.1"])
    assert hooks(model) == 0
    assert "_progress_bar_config" not in vars(subject.pipe)


def test_progress_is_told() -> None:
    rounds: list[tuple[int, int]] = []
    layer_inputs(
        toy_subject(ToyModel(), TOKENS, prompts=("a", "b"), progress=lambda *r: rounds.append(r)),
        ["up.0"],
    )
    assert rounds == [(1, 2), (2, 2)]


def test_refused() -> None:
    model = ToyModel()
    with pytest.raises(SparseError, match="no text encoder, no scheduler"):
        layer_inputs(toy_subject(model), ["up.0"])
    with pytest.raises(SparseError, match="needs prompts"):
        layer_inputs(toy_subject(model, TOKENS, prompts=()), ["up.0"])
    with pytest.raises(SparseError, match="step_weights='linear'"):
        layer_inputs(toy_subject(model, TOKENS), ["up.0"], step_weights="linear")  # type: ignore[arg-type]
    with pytest.raises(SparseError, match=r"Inputs of up\.0 are not finite"):
        layer_inputs(toy_subject(model, TOKENS * float("nan")), ["up.0"])
    model.never = torch.nn.Linear(2, 2)
    with pytest.raises(SparseError, match="never called never:"):
        layer_inputs(toy_subject(model, TOKENS), ["up.0", "never"])


def test_steps_that_nobody_counts_cannot_be_weighted() -> None:
    subject = toy_subject(ToyModel(), TOKENS)
    subject.pipe.scheduler.set_timesteps = lambda count: setattr(
        subject.pipe.scheduler, "timesteps", torch.ones(count)
    )
    subject.pipe.scheduler.step_index = 0
    with pytest.raises(SparseError, match="step_weights='log' needs the number of steps"):
        layer_inputs(subject, ["up.0"], step_weights="log")
    assert layer_inputs(subject, ["up.0"]).tokens["up.0"] == 8


@pytest.mark.parametrize("guidance", ["two calls", "one batch"])
def test_real_pipelines_guidance_and_all(guidance: str) -> None:
    """Both sides of the guidance are seen: twice the tokens of one side, in every step."""
    if guidance == "two calls":
        pipe = wan()
        model, size = pipe.transformer, {"height": 32, "width": 32, "num_frames": 5}
        call = size | {"num_inference_steps": 2, "max_sequence_length": 16}
    else:
        pipe = stable_diffusion()
        model = pipe.unet
        call = {"height": 64, "width": 64, "num_inference_steps": 2}
    structures = structures_of(model, ("ffn",))
    paths = [c.module for one in structures for c in one.cuts if c.side == "in"]

    def tokens(scale: float) -> dict[str, float]:
        subject = Subject(
            model=model,
            structures=structures,
            pipe=pipe,
            prompts=("a red circle",),
            call=call | {"guidance_scale": scale},
        )
        return dict(layer_inputs(subject, paths, step_weights="even").tokens)

    alone, guided = tokens(1.0), tokens(4.0)
    assert set(guided) == set(paths)
    assert guided == {path: 2 * count for path, count in alone.items()}
    assert hooks(model) == 0
