"""What the videos of a row of the distillation table are like: judged, compared, repeated."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]  # also where Python looks beside no script

from captions import labels_of  # noqa: E402
from classify import Verdict, classify, right_answers  # noqa: E402
from clips import generator_of  # noqa: E402
from distill_distance import mean_distance  # noqa: E402
from distill_features import FeatureNetwork, features_of  # noqa: E402
from evaluate import NAMES, score  # noqa: E402
from shapes import render  # noqa: E402

from sparsediff.quality import flicker  # noqa: E402


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Look:
    """What is found in one video for each prompt: verdicts, features `[prompts, d]`, flicker."""

    prompts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    features: Tensor
    flickers: tuple[float, ...]

    @property
    def wanted(self) -> list[dict[str, int]]:
        """Label numbers that the prompts ask for."""
        return [labels_of(prompt) for prompt in self.prompts]

    def scores(self) -> dict[str, float]:
        """Shares of right answers, overlap with the best template, steadiness of the shape."""
        return score(list(self.verdicts), self.wanted)

    def right(self) -> list[int]:
        """For each prompt whether the judge finds all that it asks for."""
        return [
            int(all(right_answers(v, w, NAMES).values()))
            for v, w in zip(self.verdicts, self.wanted, strict=True)
        ]

    def flicker(self, *, still: bool) -> float | None:
        """Mean change from frame to frame: of all, or where nothing is asked to move."""
        kept = [
            value
            for value, prompt in zip(self.flickers, self.prompts, strict=True)
            if not still or "standing still" in prompt
        ]
        return statistics.mean(kept) if kept else None


def look(network: FeatureNetwork, videos: Tensor, prompts: Sequence[str]) -> Look:
    """Look at uint8 videos `[prompts, frames, 3, h, w]`; raises ValueError for another number."""
    if len(videos) != len(prompts):
        raise ValueError(
            f"Found {len(videos)} videos; needed {len(prompts)}, one for each prompt. Generate the "
            f"rest of the row, or pass --partial."
        )
    pictures = [video.float() / 255 for video in videos]
    return Look(
        prompts=tuple(prompts),
        verdicts=tuple(classify(video) for video in pictures),
        features=features_of(network, videos),
        flickers=tuple(flicker(video.permute(0, 2, 3, 1)) for video in pictures),
    )


def diversity(network: FeatureNetwork, videos: Tensor, seeds: int) -> dict[str, Any]:
    """Mean distance of two videos of one prompt, uint8 `[prompts * seeds, frames, 3, h, w]`.

    In features, and in pixels where black and white differ by 1; 0 where seeds change nothing.
    """
    pixels = (videos.float() / 255).flatten(1)
    return {
        name: mean_distance(points.unflatten(0, (-1, seeds))).to_dict()
        for name, points in (("features", features_of(network, videos)), ("pixels", pixels))
    }


def rendered(prompts: Sequence[str], seed: int) -> Tensor:
    """What the prompts mean, drawn: uint8 `[prompts, 17, 3, 64, 64]`."""
    wanted = [labels_of(prompt) for prompt in prompts]
    labels = {name: torch.tensor([w[name] for w in wanted]) for name in wanted[0]}
    clips = render(labels, generator_of(seed))
    return ((clips.transpose(1, 2) + 1) * 127.5).round().byte().contiguous()
