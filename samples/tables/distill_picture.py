"""The picture of the distillation table: one prompt and seed, a method a row, a frame a column."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import ROWS  # noqa: E402
from strip_sheet import sheet  # noqa: E402

PROMPT = 2  # "a green star moving right on a dark background"


def picture(videos: Mapping[str, Tensor], prompt: int = PROMPT) -> Image.Image:
    """Every second frame of one prompt in uint8 videos `[prompts, frames, 3, h, w]` by row."""
    return sheet(
        {
            ROWS[name].title: torch.cat(list(some[min(prompt, len(some) - 1), ::2]), dim=2)
            for name, some in videos.items()
        }
    )
