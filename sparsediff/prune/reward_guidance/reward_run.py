"""One run of a pipeline whose UNet's decoder is masked as a reward likes it (MaskUNet)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsediff.distill.image_decoder import image_decoder
from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.reward_guidance.guided_steps import GuidedStep, GuidedSteps
from sparsediff.prune.reward_guidance.reward_settings import RewardSettings

# Images [b, 3, h, w] in 0..1 and their prompts to how good each is [b], differentiable.
Reward = Callable[[Tensor, Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewardRun:
    """``output`` of the pipeline; ``steps`` that had tries, in order."""

    output: Any
    steps: tuple[GuidedStep, ...]


def run_with_reward(
    pipe: Any,
    reward: Reward,
    settings: RewardSettings | None = None,
    *,
    decode: Callable[[Tensor], Tensor] | None = None,
    **call: Any,
) -> RewardRun:
    """Call a pipeline with masks that raise the reward of what each step foresees.

    ``reward`` of images ``[b, 3, h, w]`` fp32 in 0..1 and their prompts is ``[b]``, differentiable
    (such as an image-text model's score); ``decode`` makes images in -1..1 of latents, by default the
    pipeline's autoencoder. ``call`` are the pipeline's arguments. Every try is a forward and a backward
    pass of UNet and autoencoder. Masks are alike for all images of a call: one image a call is best.

    Afterwards the pipeline is as it was; without tries its output is, bit for bit, the plain one.
    Raises UnsupportedModelError for pipelines without a UNet2DConditionModel, and SparseError.
    """
    prompt = call.get("prompt")
    if not isinstance(prompt, str | list | tuple) or not prompt:
        raise SparseError(
            f"prompt={prompt!r}: a reward is of images and prompts; give prompts as text."
        )
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    each = int(call.get("num_images_per_prompt") or 1)
    named = [text for text in prompts for _ in range(each)]
    _check(pipe)
    steps = GuidedSteps(
        pipe,
        decode or image_decoder(pipe),
        lambda images: reward(images, named),
        settings or RewardSettings(),
    )
    with _between(pipe, steps):
        output = pipe(**call)
    return RewardRun(output=output, steps=tuple(steps.found))


@contextmanager
def _between(pipe: Any, steps: GuidedSteps) -> Iterator[None]:
    """Inside, the scheduler's step gets what `steps` answers."""
    scheduler, handle = pipe.scheduler, None
    own = scheduler.step

    @functools.wraps(own)  # pipelines look at its arguments
    def step(model_output: Tensor, timestep: Any, *arguments: Any, **named: Any) -> Any:
        return own(steps.answer(model_output, timestep), timestep, *arguments, **named)

    try:
        handle = pipe.unet.register_forward_hook(steps.heard, with_kwargs=True)
        scheduler.step = step
        yield
    finally:
        vars(scheduler).pop("step", None)
        if handle is not None:
            handle.remove()


def _check(pipe: Any) -> None:
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has no UNet: masks of a decoder are for pipelines with a "
            f"UNet2DConditionModel, such as StableDiffusionPipeline."
        )
    if getattr(unet, "_hf_hook", None) is not None:
        raise SparseError(
            "The UNet is offloaded, but its weights are needed until the backward pass. Load the "
            "pipeline without offloading: pipe.remove_all_hooks(), then pipe.to(device)."
        )
