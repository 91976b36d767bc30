"""Pictures of one shape, drawn from a seed, and their captions: single frames of shapes-wan's clips."""

from __future__ import annotations

from typing import Any

import torch
from shapes import (
    BACKGROUND_NAMES,
    COLOR_NAMES,
    MOTION_NAMES,
    SHAPES,
    Labels,
    draw_labels,
    render,
)
from torch import Tensor

NAMES = {"shape": SHAPES, "color": COLOR_NAMES, "background": BACKGROUND_NAMES}


def draw_pictures(
    count: int, generator: torch.Generator, labels: Labels | None = None, **canvas: Any
) -> tuple[Labels, Tensor]:
    """Labels, drawn unless given, and pictures float32 `[count, 3, size, size]` in -1..1.

    `canvas` goes to `shapes.render`. A shape lies anywhere: that is where a bouncing one starts.
    """
    labels = dict(draw_labels(count, generator) if labels is None else labels)
    labels["motion"] = torch.full((count,), MOTION_NAMES.index("bouncing"))
    return labels, render(labels, generator, frames=1, **canvas)[:, :, 0]


def caption(shape: int, color: int, background: int | None = None) -> str:
    """Caption of one picture from its label numbers; without the background when that is None."""
    article = "an" if COLOR_NAMES[color][0] in "aeiou" else "a"
    text = f"{article} {COLOR_NAMES[color]} {SHAPES[shape]}"
    return text if background is None else f"{text} on a {BACKGROUND_NAMES[background]} background"


def captions_of(labels: Labels, name_background: Tensor) -> list[str]:
    """Captions of a batch; `name_background` bool `[pictures]` says which name the background."""
    columns = (labels[name].tolist() for name in NAMES)
    rows = zip(*columns, name_background.tolist(), strict=True)
    return [caption(s, c, b if named else None) for s, c, b, named in rows]


def every_caption() -> list[str]:
    """One caption for each shape, color and background: 96."""
    return [
        caption(shape, color, background)
        for shape in range(len(SHAPES))
        for color in range(len(COLOR_NAMES))
        for background in range(len(BACKGROUND_NAMES))
    ]


def labels_of(text: str) -> dict[str, int]:
    """Label numbers of a caption that names all three; raises ValueError when one is missing."""
    words, found = text.lower().split(), {}
    for kind, choices in NAMES.items():
        hits = [number for number, name in enumerate(choices) if name in words]
        if len(hits) != 1:
            raise ValueError(f"Found {text!r}; needed one {kind} of {choices}. Name exactly one.")
        found[kind] = hits[0]
    return found
