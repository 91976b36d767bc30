"""From what a model's inputs say of its token layout to the TokenGrid of one attention call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from torch import Tensor

from sparsediff.coordinates import Raster, first_image, last_video
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


def has_larger_grid(layout: tuple[int, ...], tokens: int) -> bool:
    """Whether a model attends to longer sequences too: `tokens` are a small level of a UNet."""
    sizes = (layout[first : first + 3] for first in range(0, len(layout), _NUMBERS))
    return any(prod(size) > tokens for size in sizes)


class Positions:
    """Grids of models that say where every token is by its coordinates (Flux and its kin, LTX).

    Reading coordinates makes a GPU wait, so it is done once for each tensor of a run.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Tensor, Raster | None]] = {}

    def new_run(self) -> None:
        """Forget the coordinates of the last run."""
        self._known.clear()

    def layout(self, flat: tuple[int, ...], positions: Tensor) -> tuple[int, ...]:
        """`flat`, the layout of a row of tokens, with the frames, height and width they have.

        `positions`: of an image ``[s, 3 or more]`` or ``[b, s, 3 or more]``, of a video ``[b, 3, s]``.
        Tokens beside the first image or the last video are reference images and conditions; they
        become tokens before and after, which are always computed.
        """
        is_video = positions.ndim == 3 and positions.shape[1:] == (3, flat[2])
        if not is_video and positions.shape[-2] != flat[2]:
            return flat
        key = (positions.data_ptr(), tuple(positions.shape), positions._version)
        if key not in self._known:  # the tensor is kept: another one must not get its address
            found = last_video(positions) if is_video else first_image(positions)
            self._known[key] = positions, found
        raster = self._known[key][1]
        if raster is None:
            return flat
        frames, height, width, before, after = raster
        return frames, height, width, flat[3] + before, flat[4] + after


def as_layout(numbers: Sequence[int]) -> tuple[int, ...]:
    """The layout of an operator's argument."""
    return tuple(int(number) for number in numbers)
