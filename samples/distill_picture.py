"""The picture of the distillation table: one prompt and seed, a method a row, a frame a column."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import ROWS  # noqa: E402

PROMPT = 2  # "a green star moving right on a dark background"
MARGIN, GAP = 210, 4  # pixels: for the titles, and white between rows


def picture(videos: Mapping[str, Tensor], prompt: int = PROMPT) -> Image.Image:
    """Every second frame of one prompt in uint8 videos `[prompts, frames, 3, h, w]` by row."""
    height = next(iter(videos.values())).shape[-1] + GAP
    strips = {
        name: torch.cat(list(some[min(prompt, len(some) - 1), ::2]), dim=2)
        for name, some in videos.items()
    }
    width = next(iter(strips.values())).shape[2]
    sheet = Image.new("RGB", (MARGIN + width, height * len(strips)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, strip) in enumerate(strips.items()):
        pen.text((8, number * height + height // 2 - 6), ROWS[name].title, fill="black")
        frames = Image.fromarray(strip.permute(1, 2, 0).contiguous().numpy())
        sheet.paste(frames, (MARGIN, number * height))
    return sheet.quantize(128, dither=Image.Dither.NONE)
