"""MaskUNet without training: the reward rises, and nothing changes where nothing is tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tiny_pipelines import wan
from tiny_pipelines.unet import stable_diffusion
from torch import Tensor

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.reward_guidance import RewardSettings, run_with_reward

CALL = {
    "prompt": "a red circle",
    "guidance_scale": 3.0,
    "height": 64,
    "width": 64,
    "num_inference_steps": 3,
    "output_type": "pt",
}
EVERY_STEP = RewardSettings(early_steps=0, tries=3)


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert list(prompts) == ["a red circle"] * len(images)
    assert images.shape[1:] == (3, 64, 64)
    return (2 * images[:, 0] - images[:, 1] - images[:, 2]).mean(dim=(1, 2))


def pipeline(*, multistep: bool = False) -> Any:
    pipe = stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    if multistep:
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


def call(**changes: Any) -> dict[str, Any]:
    return {**CALL, "generator": torch.Generator().manual_seed(0), **changes}


@pytest.mark.parametrize("multistep", [False, True])
def test_the_reward_rises_and_the_pipeline_is_as_before(multistep: bool) -> None:
    pipe = pipeline(multistep=multistep)
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    plain = pipe(**call()).images
    run = run_with_reward(pipe, redness, EVERY_STEP, **call())
    assert [len(step.tries) for step in run.steps] == [3, 3, 3]
    assert all(step.kept >= step.plain for step in run.steps)
    # Nothing is random between the two but the masks, of which the better were kept.
    prompts = [CALL["prompt"]]
    assert float(redness(run.output.images, prompts)) > float(redness(plain, prompts))
    assert torch.equal(pipe(**call()).images, plain)
    assert "step" not in vars(pipe.scheduler)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert all(p.grad is None for p in (*pipe.unet.parameters(), *pipe.vae.parameters()))


@pytest.mark.parametrize("multistep", [False, True])
def test_without_tries_the_output_is_the_plain_one(multistep: bool) -> None:
    pipe = pipeline(multistep=multistep)
    plain = pipe(**call(eta=0.5)).images
    none = RewardSettings(early_tries=0, tries=0)
    run = run_with_reward(pipe, redness, none, **call(eta=0.5))
    assert not run.steps
    assert torch.equal(run.output.images, plain)


def test_logits_climb_and_start_anew_at_every_step() -> None:
    """Without noise a mask is open until its logit has fallen below 0: only climbing closes any."""
    settings = RewardSettings(
        early_steps=0, tries=6, start=0.5, noise="none", learning_rate=0.2, keep="last"
    )
    steps = run_with_reward(pipeline(), redness, settings, **call(num_inference_steps=2)).steps
    for step in steps:
        first = step.tries[0]
        # Open masks are the plain step: the same products in another order, on colours up to 1.
        assert first == pytest.approx(step.plain, abs=1e-5)
        assert step.tries[-1] > first + 1e-4
        assert step.kept == step.tries[-1]


def test_each_image_keeps_its_own_best_try() -> None:
    pipe = pipeline()
    settings = RewardSettings(early_steps=2, early_tries=1, tries=2)
    several = run_with_reward(pipe, redness, settings, **call(num_images_per_prompt=2))
    assert [len(step.tries) for step in several.steps] == [1, 1, 2]
    assert len(several.output.images) == 2
    assert all(step.kept >= max(step.plain, *step.tries) for step in several.steps)


def test_what_cannot_be_guided_is_refused() -> None:
    pipe = pipeline()
    with pytest.raises(SparseError, match="guidance_rescale"):
        run_with_reward(pipe, redness, EVERY_STEP, **call(guidance_rescale=0.7))
    with pytest.raises(SparseError, match="needs a finite number for each"):
        run_with_reward(pipe, lambda images, prompts: images.mean(), EVERY_STEP, **call())
    with pytest.raises(SparseError, match="give prompts as text"):
        run_with_reward(pipe, redness, EVERY_STEP, **call(prompt=None))
    with pytest.raises(UnsupportedModelError, match="has no UNet"):
        run_with_reward(wan(layers=1), redness, EVERY_STEP, **call())
    with pytest.raises(SparseError, match="keep = 'first'"):
        RewardSettings(keep="first")  # type: ignore[arg-type]
    assert "step" not in vars(pipe.scheduler)
    assert not any(m._forward_hooks for m in pipe.unet.modules())
