"""Grids from the coordinates of every token, for models that are not told frames, height and width."""

from __future__ import annotations

import torch
from torch import Tensor

Raster = tuple[int, int, int, int, int]  # frames, height, width, tokens before, tokens after


def first_image(positions: Tensor) -> Raster | None:
    """The image that a sequence begins with; None if it is no raster (Flux and its kin).

    `positions`: ``[s, 3 or more]`` or ``[b, s, 3 or more]``, each token's image, row and column. The
    images after the first one are tokens after.
    """
    ids = (positions[0] if positions.ndim == 3 else positions)[:, :3].double()
    number = torch.arange(len(ids), device=ids.device)
    first = (ids[:, 0] == ids[0, 0]).long().cumprod(0)
    size = first.sum()
    rows, columns = ((ids[:, axis] - ids[0, axis]) for axis in (1, 2))
    width = (torch.where(first.bool(), columns, 0).max() + 1).clamp(min=1).long()
    raster = (rows == number // width) & (columns == number % width)
    facts = torch.stack([size, width, (raster | ~first.bool()).all().long()])
    tokens, wide, is_raster = (int(value) for value in facts.tolist())
    if not is_raster or tokens % wide:
        return None
    return 1, tokens // wide, wide, 0, len(ids) - tokens


def last_video(positions: Tensor) -> Raster | None:
    """The video that a sequence ends with; None if it is no raster (LTX with conditions).

    `positions`: ``[b, 3, s]``, each token's time, row and column in any unit. Tokens before it,
    which condition it, are at times of their own: a frame belongs to the video when it is laid out
    like the last one and earlier than the next.
    """
    time, row, column = positions[0].double().cpu()
    last = time == time[-1]
    size, width = _trailing(last), _trailing(last & (row == row[-1]))
    if size % width:
        return None
    count = len(time) // size
    times, rows, columns = (
        x[len(x) - count * size :].view(count, size) for x in (time, row, column)
    )
    across, down = columns[-1].view(-1, width), rows[-1].view(-1, width)
    if not torch.equal(across, across[:1].expand_as(across)):
        return None
    if not torch.equal(down, down[:, :1].expand_as(down)):
        return None
    alike = (times == times[:, :1]) & (rows == rows[-1]) & (columns == columns[-1])
    later = torch.cat([times[1:, 0], torch.full_like(times[:1, 0], torch.inf)])
    frames = _trailing(alike.all(dim=1) & (times[:, 0] < later))
    return frames, size // width, width, len(time) - frames * size, 0


def _trailing(holds: Tensor) -> int:
    """How many of the last values are true in a row."""
    return int(holds.flip(0).long().cumprod(0).sum())
