"""A sheet of pictures: a title and a strip of frames a line."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw
from torch import Tensor

MARGIN, GAP = 210, 4  # pixels: for the titles, and white between lines


def sheet(strips: Mapping[str, Tensor]) -> Image.Image:
    """Strips uint8 `[3, h, w]`, all of one height, below each other; 128 colors."""
    height = next(iter(strips.values())).shape[1] + GAP
    width = max(strip.shape[2] for strip in strips.values())
    found = Image.new("RGB", (MARGIN + width, height * len(strips)), "white")
    pen = ImageDraw.Draw(found)
    for number, (title, strip) in enumerate(strips.items()):
        pen.text((8, number * height + height // 2 - 6), title, fill="black")
        frames = Image.fromarray(strip.permute(1, 2, 0).contiguous().numpy())
        found.paste(frames, (MARGIN, number * height))
    return found.quantize(128, dither=Image.Dither.NONE)
