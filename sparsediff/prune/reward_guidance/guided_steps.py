"""GuidedSteps: between model and scheduler of a running pipeline, what masks make of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.noise import FlowNoise, noise_of
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.reward_guidance.reward_settings import RewardSettings
from sparsediff.prune.reward_guidance.weight_logits import WeightLogits

# Images [b, 3, h, w] in 0..1 to how good each is [b], differentiable.
ImageReward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidedStep:
    """Mean rewards of the images that a step foresees: ``plain``, of each try, and as ``kept``."""

    plain: float
    tries: tuple[float, ...]
    kept: float


class GuidedSteps:
    """Hears the UNet's call of every step; answers the scheduler with the output of the best masks.

    The scheduler steps once a step, with one output, so nothing of its state has to be put back: a
    multistep scheduler remembers what was kept. Raises SparseError where the pipeline does more
    between UNet and scheduler than guidance.
    """

    def __init__(
        self,
        pipe: Any,
        decode: Callable[[Tensor], Tensor],
        reward: ImageReward,
        settings: RewardSettings,
    ) -> None:
        self.pipe, self.decode, self.reward, self.settings = pipe, decode, reward, settings
        self.logits = WeightLogits(pipe.unet, settings)
        self.levels = noise_of(pipe.scheduler)
        self.found: list[GuidedStep] = []
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self._plain: Tensor | None = None
        self._step = 0

    def heard(self, unet: Any, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        """After the UNet's own call: note it."""
        self._call = arguments, named
        self._plain = out[0]

    def answer(self, output: Tensor, timestep: Any) -> Tensor:
        """What the scheduler gets instead of `output`; that itself where a step has no tries."""
        tries = self.settings.tries_at(self._step)
        self._step += 1
        if not tries:
            return output
        self._check(output)
        with torch.no_grad():
            best = self._reward(output, timestep)
        plain, kept, rewards = float(best.mean()), output, list[float]()
        self.logits.reset()
        call, known = self._call, self._plain
        for _ in range(tries):
            with torch.enable_grad():
                tried = self._tried(call)
                reward = self._reward(tried, timestep)
                self.logits.rise(reward.mean())
            reward, tried = reward.detach(), tried.detach().to(output.dtype)
            rewards.append(float(reward.mean()))
            better = reward > best if self.settings.keep == "best" else torch.ones_like(best) > 0
            kept = torch.where(better.view(-1, *[1] * (output.ndim - 1)), tried, kept)
            best = torch.where(better, reward, best)
        self._call, self._plain = call, known
        self.found.append(GuidedStep(plain=plain, tries=tuple(rewards), kept=float(best.mean())))
        return kept

    def _tried(self, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
        arguments, named = call
        with self.logits.applied(self.pipe.unet):
            return self._guided(self.pipe.unet(*arguments, **named)[0])

    def _guided(self, output: Tensor) -> Tensor:
        if not getattr(self.pipe, "do_classifier_free_guidance", False):
            return output
        without, told = output.chunk(2)
        guided: Tensor = without + self.pipe.guidance_scale * (told - without)
        return guided

    def _reward(self, output: Tensor, timestep: Any) -> Tensor:
        """Of the images that the UNet foresees by an output ``[b, c, h, w]``."""
        arguments, named = self._call
        noisy = (arguments[0] if arguments else named["sample"])[: len(output)]
        time = torch.as_tensor(timestep, dtype=torch.float32, device=output.device).expand(
            len(output)
        )
        level = self.levels.at(time if isinstance(self.levels, FlowNoise) else time + 1)
        clean, _ = self.levels.split(noisy.float(), output, level)
        reward = self.reward((self.decode(clean) / 2 + 0.5).clamp(0, 1))
        if reward.shape != (len(output),) or not bool(reward.isfinite().all()):
            found = reward.tolist() if reward.ndim < 2 else list(reward.shape)
            raise SparseError(
                f"The reward of {len(output)} images is {found}: needs a finite number for each, [b]."
            )
        return reward

    def _check(self, output: Tensor) -> None:
        guided = None if self._plain is None else self._guided(self._plain)
        if guided is None or guided.shape != output.shape or not _near(guided, output):
            raise SparseError(
                f"{type(self.pipe).__name__} does more between UNet and scheduler than classifier-free "
                f"guidance, which tries would lack. Leave guidance_rescale and other guidance off, and "
                f"use a pipeline that makes images from text."
            )


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding: half precision's is 1e-3."""
    scale = float(other.abs().max())
    return float((one - other).abs().max()) <= 1e-2 * scale
