"""An automatic judge: shape, color, motion and background of a video, by template matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from shapes import (
    BACKGROUND_NAMES,
    BACKGROUNDS,
    COLOR_NAMES,
    COLORS,
    SHAPES,
    shape_distance,
)
from torch import Tensor

# In pixels of a 64 x 64 video, and colors in 0..255.
SOLID_DISTANCE = 60.0
LEAST_PIXELS = 60
STILL_REACH = 5.0
BOUNCING_REACH = 7.0
TEMPLATE_RADII = torch.arange(8.0, 17.1, 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a video shows; "none" where no shape stays visible. `overlap` is the mean intersection
    over union with the best template, `steady` the share of frames that agree on the shape."""

    shape: str
    color: str
    motion: str
    background: str
    overlap: float
    steady: float


def _templates(center: Tensor, size: int) -> Tensor:
    """Coverage `[shapes, radii, size, size]` of every shape and radius around a centroid (x, y)."""
    grid = torch.arange(size).float() + 0.5
    radii = TEMPLATE_RADII[:, None, None]
    x, y = (grid - center[0])[None, None, :], (grid - center[1])[None, :, None]
    masks = []
    for shape in SHAPES:
        # The centroid of the triangle lies 0.22 radii above the point that it is drawn around.
        down = 0.22 * radii if shape == "triangle" else torch.zeros_like(radii)
        across = x.expand(len(radii), size, size)
        masks.append((0.5 - shape_distance(shape, across, y + down, radii)).clamp(0, 1))
    return torch.stack(masks)


def _motion(path: Tensor) -> str:
    """Name of the motion along the centres `[frames, 2]`."""
    reach, way = path.amax(0) - path.amin(0), path[-1] - path[0]
    if reach.max() < STILL_REACH:
        return "still"
    if reach.min() > BOUNCING_REACH:
        return "bouncing"
    if reach[0] > reach[1]:
        return "right" if way[0] > 0 else "left"
    return "down" if way[1] > 0 else "up"


def _look(frame: Tensor, distance: Tensor, ground: Tensor) -> tuple[int, Tensor, Tensor] | None:
    """Color number, coverage `[h, w]` and centre (x, y) of the shape in one frame, if there is one."""
    solid = distance > SOLID_DISTANCE
    if int(solid.sum()) < LEAST_PIXELS:
        return None
    palette = torch.tensor(list(COLORS.values())).float()
    inner = distance[solid] >= distance[solid].quantile(0.4)
    seen = frame[:, solid][:, inner].median(dim=1).values
    color = int((palette - seen).norm(dim=1).argmin())
    cover = (distance / (palette[color] - ground).norm()).clamp(0, 1)
    cover = torch.where(cover > 0.2, cover, torch.zeros(()))
    grid = torch.arange(len(cover)).float() + 0.5
    center = torch.stack([(cover.sum(axis) * grid).sum() for axis in (0, 1)]) / cover.sum()
    return color, cover, center


def _most(votes: list[int]) -> int:
    return max(set(votes), key=votes.count)


def classify(video: Tensor) -> Verdict:
    """Judge one square video `[frames, 3, size, size]` in 0..1; made for size 64."""
    video = video.float().clamp(0, 1) * 255
    border = torch.cat([video[..., 0, :], video[..., -1, :], video[..., 0], video[..., -1]], dim=-1)
    ground = border.permute(0, 2, 1).reshape(-1, 3).median(dim=0).values
    grounds = torch.tensor(list(BACKGROUNDS.values())).float()
    background = BACKGROUND_NAMES[int((grounds - ground).norm(dim=1).argmin())]
    distance = (video - ground[None, :, None, None]).norm(dim=1)
    colors, shapes, overlaps, path = [], [], [], []
    for number, frame in enumerate(video):
        seen = _look(frame, distance[number], ground)
        if seen is None:
            continue
        color, cover, center = seen
        colors.append(color)
        path.append(center)
        if number % 2 == 0:
            templates = _templates(center, len(cover))
            common, union = torch.minimum(templates, cover), torch.maximum(templates, cover)
            match = common.sum((2, 3)) / union.sum((2, 3))
            shapes.append(int(match.amax(1).argmax()))
            overlaps.append(float(match.max()))
    if len(path) < 0.8 * len(video) or not shapes:
        none = {"shape": "none", "color": "none", "motion": "none"}
        return Verdict(**none, background=background, overlap=0.0, steady=0.0)
    shape = _most(shapes)
    return Verdict(
        shape=SHAPES[shape],
        color=COLOR_NAMES[_most(colors)],
        motion=_motion(torch.stack(path)),
        background=background,
        overlap=sum(overlaps) / len(overlaps),
        steady=shapes.count(shape) / len(shapes),
    )


def right_answers(
    verdict: Verdict, wanted: Mapping[str, int], names: Mapping[str, Sequence[str]]
) -> dict[str, bool]:
    """For each of `names`, whether the verdict is the choice whose number is `wanted`."""
    return {
        name: getattr(verdict, name) == choices[wanted[name]] for name, choices in names.items()
    }
