"""Where every head looked, beside the pattern that was chosen for it, as small pictures."""

from __future__ import annotations

from html import escape

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.block_mask import block_count
from sparsediff.media import data_uri, png
from sparsediff.plan_report import PlanReport
from sparsediff.report_pages.mode_map import LETTERS, head_words, layer_names, part_names
from sparsediff.report_pages.pictures import INK, inked, strength
from sparsediff.search.patterns.block_offsets import block_offsets
from sparsediff.search.patterns.pattern import (
    MODES,
    Diagonal,
    Full,
    MultiDiagonal,
    Pattern,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_table import PlannedHead
from sparsediff.search.patterns.token_reorder import by_place
from sparsediff.search.token_grid import TokenGrid

MOST = 3000  # pictures on a page; parts of the run beyond them are left out
_COLOURS = {  # of plan.css
    "full": (141, 138, 131),
    "skip": (141, 138, 131),
    "diagonal": (86, 180, 233),
    "multi-diagonal": (230, 159, 0),
    "stripe": (31, 177, 132),
    "online": (204, 121, 167),
}
_GAP = 2
_SAMPLES = 16  # blocks, or reordered tokens, that a cell is made of


def head_maps(report: PlanReport) -> str:
    """For every part of the run and layer the heads' attention (left) and pattern (right)."""
    if report.profile is None:
        return ""
    table = report.plan.table
    shown = max(1, min(len(table.buckets), MOST // sum(table.heads)))
    drawing = _Drawing(report)
    parts = []
    for bucket, words in list(enumerate(part_names(report.plan)))[:shown]:
        layers = "".join(
            f"<h3>{escape(name)}</h3>"
            f'<div class="duos">{drawing.layer(bucket, layer, table.buckets[bucket][layer])}</div>'
            for layer, name in enumerate(layer_names(report.plan))
        )
        opened = " open" if bucket == 0 else ""
        parts.append(
            f'<details class="part"{opened}><summary>{escape(words)}</summary>{layers}</details>'
        )
    left = len(table.buckets) - shown
    note = f"<p>{left} later part(s) of the run are left out to keep the page small.</p>"
    return "".join(parts) + (note if left else "")


def pattern_map(pattern: Pattern, grid: TokenGrid, block: int, side: int) -> Tensor:
    """Share of its pairs that a pattern computes in each coarse cell: ``[side, side]``.

    In the order of the sequence, also where the tokens are reordered to compute it. Cells of more than
    _SAMPLES blocks are estimated from so many. An online head shows its text alone.
    """
    blocks = block_count(grid.tokens, block)
    at = _sampled_blocks(pattern, grid, block, side)
    taken = torch.zeros(len(at), len(at), dtype=torch.bool)
    if isinstance(pattern, Full):
        taken[:] = True
    elif isinstance(pattern, Diagonal | MultiDiagonal):
        taken = block_offsets(pattern, grid, block)[at[None, :] - at[:, None] + blocks - 1]
    elif isinstance(pattern, Stripe):
        taken |= torch.isin(at, torch.tensor(pattern.columns))
    if not isinstance(pattern, Skip):
        text = grid.text_blocks(block)[at]
        taken |= text | text[:, None]
    return functional.adaptive_avg_pool2d(taken.float()[None], side)[0]


def _sampled_blocks(pattern: Pattern, grid: TokenGrid, block: int, side: int) -> Tensor:
    """Numbers of blocks in the order of the sequence: all of them, or some for every cell."""
    blocks, count = block_count(grid.tokens, block), side * _SAMPLES
    spread = (torch.arange(count) + 0.5) / count
    if isinstance(pattern, MultiDiagonal) and pattern.by_place:  # where each token has gone
        return by_place(grid).argsort()[(spread * grid.tokens).long()] // block
    return torch.arange(blocks) if blocks <= count else (spread * blocks).long()


class _Drawing:
    """Draws the heads of one report; patterns that occur often are computed once."""

    def __init__(self, report: PlanReport) -> None:
        self.report = report
        self.known: dict[tuple[Pattern, int], Tensor] = {}

    def layer(self, bucket: int, layer: int, heads: tuple[PlannedHead, ...]) -> str:
        profile = self.report.profile
        if profile is None:
            return ""
        attention = profile.layers[layer].maps[bucket]
        return "".join(
            self._figure(layer, number, planned, attention[number])
            for number, planned in enumerate(heads)
        )

    def _figure(self, layer: int, number: int, planned: PlannedHead, attention: Tensor) -> str:
        mode = MODES[type(planned.pattern)]
        key = (planned.pattern, attention.shape[-1])
        if key not in self.known:
            table = self.report.plan.table
            self.known[key] = pattern_map(planned.pattern, table.grid, table.block_size, key[1])
        uri = _pair(attention, self.known[key], _COLOURS[mode])
        said = escape(head_words(self.report, layer, planned), quote=True)
        return (
            f'<figure title="{said}"><img loading="lazy" src="{uri}" '
            f'alt="attention of head {number}, and its pattern: {said}">'
            f"<figcaption><b>{number}</b> {LETTERS[mode]} "
            f"{self.report.density(planned.pattern):.2f}{_error(planned)}</figcaption></figure>"
        )


def _error(planned: PlannedHead) -> str:
    return "" if planned.error is None else f", error {planned.error:.2g}"


def _pair(attention: Tensor, pattern: Tensor, colour: tuple[int, int, int]) -> str:
    """Both as one png address."""
    strong = strength(attention)
    gap = np.zeros((strong.shape[-1], _GAP, 4), dtype=np.uint8)
    return data_uri(png(np.hstack([inked(strong, INK), gap, inked(pattern, colour)])), ".png")
