"""From what a model's inputs say of its token layout to the TokenGrid of one attention call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sparsediff.models.facts import REST
from sparsediff.search import TokenGrid

_NUMBERS = 5  # of one grid: frames, height, width, tokens before, tokens after


@lru_cache(maxsize=256)
def grid_of(layout: tuple[int, ...], tokens: int | None) -> TokenGrid | None:
    """The first grid of a `Layout` that has `tokens` tokens; None when there is none.

    Without `tokens` it is the first grid at all, with nothing beside it where that is open.
    """
    for first in range(0, len(layout), _NUMBERS):
        frames, height, width, before, after = layout[first : first + _NUMBERS]
        least = frames * height * width + max(before, 0) + max(after, 0)
        rest = (least if tokens is None else tokens) - least
        flexible = REST in (before, after)
        if min(frames, height, width) < 1 or rest < 0 or (rest and not flexible):
            continue
        return TokenGrid(
            frames=frames,
            height=height,
            width=width,
            text_before=rest if before == REST else before,
            text_after=rest if after == REST else after,
        )
    return None


class Positions:
    """Grids of models that say where every token is by its coordinates (Flux and its kin).

    Reading coordinates makes a GPU wait, so it is done once for each tensor of a run.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Tensor, tuple[int, int, int] | None]] = {}

    def new_run(self) -> None:
        """Forget the coordinates of the last run."""
        self._known.clear()

    def layout(self, flat: tuple[int, ...], positions: Tensor) -> tuple[int, ...]:
        """`flat`, the layout of a row of tokens, with the height and width of its first image.

        `positions`: ``[s, 3 or more]`` or ``[b, s, 3 or more]``, each token's frame, row and column.
        Reference images after the first one become tokens after, which are always computed.
        """
        key = (positions.data_ptr(), tuple(positions.shape), positions._version)
        if key not in self._known:  # the tensor is kept: another one must not get its address
            self._known[key] = positions, _first_image(positions)
        image = self._known[key][1]
        tokens = positions.shape[-2]
        if image is None or flat[2] != tokens:
            return flat
        height, width, size = image
        return 1, height, width, flat[3], flat[4] + tokens - size


def _first_image(positions: Tensor) -> tuple[int, int, int] | None:
    """Height, width and tokens of the image that the sequence begins with; None if it is no raster."""
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
    return tokens // wide, wide, tokens


def as_layout(numbers: Sequence[int]) -> tuple[int, ...]:
    """The layout of an operator's argument."""
    return tuple(int(number) for number in numbers)
