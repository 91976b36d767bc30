"""TokenGrid: how a model lays out its token sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.search.token_order import RASTER, tile_tokens, video_order


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid:
    """Layout of one token sequence: ``[text_before | frames x height x width | text_after]``.

    An image has one frame. All sizes count tokens (after patchifying). Text tokens are those that share
    self-attention with the video. ``order`` of the video tokens: "raster", frame by frame and row by
    row, as models have them; "gilbert", along a generalised Hilbert curve; "tile-64", in tiles of 64
    neighbours (of any number). Plans and files hold raster grids only.

    Raises SparseError when a size is not a whole number, the video is empty or the order unknown.
    """

    frames: int
    height: int
    width: int
    text_before: int = 0
    text_after: int = 0
    order: str = RASTER

    def __post_init__(self) -> None:
        for name, value in self.sizes.items():
            least = 0 if name.startswith("text") else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SparseError(f"TokenGrid.{name}={value!r}: needs a whole number >= {least}.")
        tile_tokens(self.order)

    @property
    def sizes(self) -> dict[str, int]:
        """The five numbers that files hold, by name."""
        names = ("frames", "height", "width", "text_before", "text_after")
        return {name: getattr(self, name) for name in names}

    @property
    def video_tokens(self) -> int:
        """Number of video tokens."""
        return self.frames * self.height * self.width

    @property
    def text_tokens(self) -> int:
        """Number of text tokens on both sides."""
        return self.text_before + self.text_after

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return self.video_tokens + self.text_tokens

    def index(self, frame: int, row: int, column: int) -> int:
        """Place in the sequence of the video token at (frame, row, column)."""
        inside = 0 <= frame < self.frames and 0 <= row < self.height and 0 <= column < self.width
        if not inside:
            raise SparseError(f"({frame}, {row}, {column}) lies outside {self}.")
        raster = (frame * self.height + row) * self.width + column
        if self.order == RASTER:
            return self.text_before + raster
        return self.text_before + int((self._video_order() == raster).nonzero())

    def position(self, index: int) -> tuple[int, int, int] | None:
        """(frame, row, column) of the token at `index`; None for a text token."""
        if not 0 <= index < self.tokens:
            raise SparseError(f"Token {index} lies outside {self}, which has {self.tokens} tokens.")
        video = index - self.text_before
        if not 0 <= video < self.video_tokens:
            return None
        if self.order != RASTER:
            video = int(self._video_order()[video])
        frame, rest = divmod(video, self.height * self.width)
        row, column = divmod(rest, self.width)
        return frame, row, column

    def positions(self) -> Tensor:
        """Frame, row and column of every video token, in the grid's order: int64 ``[n, 3]``, CPU."""
        raster = self._video_order()
        place, column = raster // self.width, raster % self.width
        return torch.stack([place // self.height, place % self.height, column], dim=1)

    def _video_order(self) -> Tensor:
        return video_order((self.frames, self.height, self.width), self.order)

    def text_edges(self, block: int) -> tuple[int, int]:
        """How many blocks of `block` tokens at the start and at the end hold any text token."""
        blocks = block_count(self.tokens, block)
        lead = block_count(self.text_before, block)
        if not self.text_after:
            return lead, 0
        return lead, min(blocks - lead, blocks - (self.text_before + self.video_tokens) // block)

    def video_blocks(self, block: int) -> int:
        """How many blocks of `block` tokens hold video only; 0 when text touches them all."""
        return block_count(self.tokens, block) - sum(self.text_edges(block))

    def text_blocks(self, block: int, device: torch.device | str = "cpu") -> Tensor:
        """Which blocks of `block` tokens hold at least one text token: bool ``[blocks]``."""
        lead, trail = self.text_edges(block)
        number = torch.arange(block_count(self.tokens, block), device=device)
        return (number < lead) | (number >= len(number) - trail)

    def __str__(self) -> str:
        text = f", text {self.text_before}+{self.text_after}" if self.text_tokens else ""
        order = "" if self.order == RASTER else f", {self.order}"
        return f"TokenGrid({self.frames}x{self.height}x{self.width}{text}{order})"
