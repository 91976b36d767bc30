"""What the samples of the pruning table show, and rendered ones for its denoising loss."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train"), str(HERE.parent / "train_unet")]

import captions  # noqa: E402
import evaluate  # noqa: E402
import pictures  # noqa: E402
from classify import classify, right_answers  # noqa: E402
from clips import ClipSource, generator_of  # noqa: E402
from pruning_models import SampleModel  # noqa: E402
from recipe import KINDS  # noqa: E402

CLEAN_SEED = 20_001  # neither the trainings nor the other checks draw from it


def judged(model: SampleModel, prompt: str, sample: Tensor) -> dict[str, Any]:
    """What the judge sees in one uint8 `[frames, 3, h, w]`, and whether all of it is right."""
    names, wanted = _asked(model, prompt)
    verdict = classify(sample.float() / 255)
    found = {name: getattr(verdict, name) for name in names}
    right = all(right_answers(verdict, wanted, names).values())
    return {**found, "overlap": round(verdict.overlap, 4), "right": right}


def answers(model: SampleModel, case: Mapping[str, Any]) -> float:
    """Of what the prompt of a case names, the share that the judge found."""
    names, wanted = _asked(model, case["prompt"])
    right = [case[name] == choices[wanted[name]] for name, choices in names.items()]
    return sum(right) / len(right)


def _asked(
    model: SampleModel, prompt: str
) -> tuple[Mapping[str, Sequence[str]], Mapping[str, int]]:
    """What is judged, with its choices, and the numbers of those that the prompt names."""
    if model.noun == "pictures":
        return pictures.NAMES, pictures.labels_of(prompt)
    return evaluate.NAMES, captions.labels_of(prompt)


@torch.no_grad()
def rendered(model: SampleModel, pipe: Any) -> tuple[Tensor, list[str]]:
    """Latents `[clean, ...]` of rendered samples, as the model sees them, and their captions."""
    if model.noun == "pictures":
        labels, drawn = pictures.draw_pictures(model.clean, generator_of(CLEAN_SEED))
        latents = pipe.vae.encode(drawn).latent_dist.mode() * pipe.vae.config.scaling_factor
        return latents, pictures.captions_of(labels, torch.ones(model.clean, dtype=torch.bool))
    frames = (model.call()["num_frames"] + 1) // 2
    kind = replace(KINDS["full"], batch=model.clean, frames=frames)
    clips = ClipSource(model.folder / "vae", "cpu").clips(kind, CLEAN_SEED)
    return clips.latents, clips.captions
