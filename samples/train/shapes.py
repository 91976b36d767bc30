"""Renderer of captioned clips: one solid antialiased shape that moves on a plain background.

Everything is drawn from signed distances, a whole batch at once, and follows from the generator:
the same seed gives the same clips and captions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
COLORS = {
    "red": (225, 45, 45),
    "orange": (245, 145, 30),
    "yellow": (240, 220, 40),
    "green": (50, 175, 70),
    "cyan": (50, 200, 215),
    "blue": (50, 85, 225),
    "purple": (140, 60, 190),
    "pink": (245, 130, 185),
}
MOTIONS = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "still": "standing still",
    "bouncing": "bouncing",
}
BACKGROUNDS = {"dark": (24, 26, 34), "light": (232, 232, 226)}
COLOR_NAMES, MOTION_NAMES, BACKGROUND_NAMES = tuple(COLORS), tuple(MOTIONS), tuple(BACKGROUNDS)

# What a clip shows, by the number of choices for each; labels are tensors of these numbers.
CHOICES = {
    "shape": len(SHAPES),
    "color": len(COLORS),
    "motion": len(MOTIONS),
    "background": len(BACKGROUNDS),
}
Labels = dict[str, Tensor]


def _star(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    # Fold the plane onto one tenth of the star, then measure to the line from its tip to its notch.
    sector = math.pi / 5
    angle = torch.atan2(x, -y).remainder(2 * sector)
    angle = torch.minimum(angle, 2 * sector - angle)
    rho, tip, notch = torch.hypot(x, y), 1.12, 0.50
    edge_x, edge_y = notch * math.cos(sector) - tip, notch * math.sin(sector)
    inside = (rho * angle.cos() - tip * r) * edge_y - rho * angle.sin() * edge_x
    return inside / math.hypot(edge_x, edge_y)


def shape_distance(shape: str, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Signed distance in pixels, negative inside, to a shape of radius `r` at the origin.

    `x` and `y` (pointing down) and `r` broadcast; raises KeyError on an unknown shape.
    """
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "ring":
        return (torch.hypot(x, y) - 0.72 * r).abs() - 0.28 * r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86 * r
    if shape == "triangle":
        y, slope = y - 0.22 * r, math.sqrt(3) / 2
        sides = torch.maximum(slope * x - 0.5 * y, -slope * x - 0.5 * y)
        return torch.maximum(y, sides) - 0.58 * r
    if shape == "cross":
        across, down, arm = x.abs(), y.abs(), 0.34 * r
        beams = torch.maximum(across - arm, down - r), torch.maximum(across - r, down - arm)
        return torch.minimum(*beams)
    if shape == "star":
        return _star(x, y, r)
    raise KeyError(f"Found shape {shape!r}; needed one of {SHAPES}.")


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _reflected(start: Tensor, speed: Tensor, time: Tensor, room: Tensor) -> Tensor:
    position = (start[:, None] + speed[:, None] * time).remainder(2 * room[:, None])
    return torch.minimum(position, 2 * room[:, None] - position)


def _paths(
    motion: Tensor,
    radius: Tensor,
    generator: torch.Generator,
    *,
    frames: int,
    size: int,
    journey: int,
) -> tuple[Tensor, Tensor]:
    """Centres x and y, `[clips, frames]` each; a moving shape covers its way in `journey` frames."""
    n, room, time = len(motion), size - 2 * radius, torch.arange(frames).float()[None]
    travel = _uniform(n, 0.55, 0.95, generator) * room
    slack = _uniform(n, 0.0, 1.0, generator) * (room - travel)
    across, free = (_uniform(n, 0.0, 1.0, generator) * room for _ in range(2))
    speeds = [
        _uniform(n, 1.5, 3.0, generator) * (torch.randint(0, 2, (n,), generator=generator) * 2 - 1)
        for _ in range(2)
    ]
    forward = slack[:, None] + travel[:, None] * time / (journey - 1)
    backward = room[:, None] - forward
    x, y = (start[:, None].expand(n, frames).clone() for start in (across, free))
    for index, name in enumerate(MOTION_NAMES):
        rows = motion == index
        if name in {"left", "right"}:
            x[rows] = (forward if name == "right" else backward)[rows]
        elif name in {"up", "down"}:
            y[rows] = (forward if name == "down" else backward)[rows]
        elif name == "bouncing":
            x[rows] = _reflected(across, speeds[0], time, room)[rows]
            y[rows] = _reflected(free, speeds[1], time, room)[rows]
    return x + radius[:, None], y + radius[:, None]


def draw_labels(count: int, generator: torch.Generator) -> Labels:
    """Random labels: for each name in CHOICES an int64 tensor `[count]`."""
    return {
        name: torch.randint(0, choices, (count,), generator=generator)
        for name, choices in CHOICES.items()
    }


def render(
    labels: Labels,
    generator: torch.Generator,
    *,
    frames: int = 17,
    size: int = 64,
    radius: tuple[float, float] = (11.0, 13.5),
    journey: int = 17,
) -> Tensor:
    """Clips of the labelled shapes: float32 `[clips, 3, frames, size, size]` in -1..1.

    `radius` is the range of the radius in pixels; `journey` the frames in which a moving shape
    crosses its way, so that short clips keep the speed of long ones.
    """
    count = len(labels["shape"])
    r = _uniform(count, *radius, generator)
    center_x, center_y = _paths(
        labels["motion"], r, generator, frames=frames, size=size, journey=journey
    )
    grid = torch.arange(size).float() + 0.5
    ground = torch.tensor(list(BACKGROUNDS.values())).float()[labels["background"]]
    paint = torch.tensor(list(COLORS.values())).float()[labels["color"]][:, :, None, None, None]
    clips = ground[:, :, None, None, None].expand(count, 3, frames, size, size).clone()
    for index, shape in enumerate(SHAPES):
        rows = labels["shape"] == index
        x = grid[None, None, None, :] - center_x[rows][:, :, None, None]
        y = grid[None, None, :, None] - center_y[rows][:, :, None, None]
        cover = (0.5 - shape_distance(shape, x, y, r[rows][:, None, None, None])).clamp(0, 1)
        clips[rows] = torch.lerp(clips[rows], paint[rows].expand_as(clips[rows]), cover[:, None])
    return clips / 127.5 - 1
