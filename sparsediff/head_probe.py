"""HeadProbe: looks into the attention calls of a run, and keeps small pictures of every head."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search import AttentionCall, Step
from sparsediff.search.recall import recall

_SIDE = 64  # cells of a map, or as many as there are blocks
_MOST_STEPS = 12
_MOST_BYTES = 64 * 2**20  # of all maps of a run
_CELL_BYTES = 3  # float16 of attention, one byte of what was kept


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerView:
    """One attention call of a layer, head by head, its block pairs pooled into cells.

    ``kept`` uint8 ``[h, y, x]``: share of a cell's block pairs that were computed, 255 is all of them.
    ``attention`` float16 ``[h, y, x]``: the dense attention's mean weight in a cell over its mean in
    the whole map; None where it was not measured, and then ``recall`` is empty. ``density`` and
    ``recall`` per head; ``blocks`` the query and key blocks before pooling, ``block_size`` tokens of
    one. ``is_dense``: the call ran dense as planned.
    """

    kept: Tensor
    density: tuple[float, ...]
    blocks: tuple[int, int]
    block_size: tuple[int, int]
    attention: Tensor | None = None
    recall: tuple[float, ...] = ()
    is_dense: bool = False

    @classmethod
    def of_mask(cls, mask: BlockMask, *, side: int = _SIDE) -> LayerView:
        """What a mask keeps, for its last batch item."""
        return cls(
            kept=_kept(mask, side),
            density=tuple(mask.head_density[-1].tolist()),
            blocks=(mask.q_blocks, mask.kv_blocks),
            block_size=mask.block_size,
        )


class HeadProbe:
    """An observer of a session: what every head attends to beside what it computes.

    It looks at twelve steps spread over the run, the first and the last among them, or at all when
    there are fewer; in each at the first call of a layer, and of that at the last batch item: the
    prompt's, where guidance shares the call. Looking costs a dense attention and a pass over q k^T;
    the output stays what it is. ``views`` by (layer, step); they stay below 64 MiB for any model.
    """

    def __init__(self, *, layers: int, block_size: int) -> None:
        self.layers = layers
        self.block_size = block_size  # of calls that run dense and bring no mask
        self.views: dict[tuple[int, int], LayerView] = {}

    def __call__(self, call: AttentionCall, mask: BlockMask | None) -> None:
        """Look at a call that ran over `mask`, or dense."""
        place = (call.layer, call.step.index)
        if place in self.views or not is_looked_at(call.step):
            return
        with torch.no_grad():
            self.views[place] = self._view(call, mask)

    def _view(self, call: AttentionCall, mask: BlockMask | None) -> LayerView:
        tokens, dense = call.q.shape[1], mask is None
        if mask is None:
            mask = BlockMask.full(
                block_size=self.block_size, q_len=tokens, kv_len=tokens, device=call.q.device
            )
        mass = call.mass(call.lse(), mask.block_size[0])
        heads = mass.shape[1]
        side = map_side(self.layers * heads)
        return LayerView(
            kept=_kept(mask, side).expand(heads, -1, -1),
            density=tuple(mask.head_density[-1].expand(heads).tolist()),
            blocks=(mask.q_blocks, mask.kv_blocks),
            block_size=mask.block_size,
            attention=_relative(mass[-1], side),
            recall=tuple(recall(mass, mask)[-1].tolist()),
            is_dense=dense,
        )


def is_looked_at(step: Step, most: int = _MOST_STEPS) -> bool:
    """Whether a step is one of `most` spread over the run; of the first where its end is unknown."""
    if step.total is None or step.total <= most:
        return step.index < most
    return step.index in {round(n * (step.total - 1) / (most - 1)) for n in range(most)}


def map_side(heads: int) -> int:
    """Cells on a side of each map when so many heads are looked at in a run."""
    return max(8, min(_SIDE, isqrt(_MOST_BYTES // (_CELL_BYTES * _MOST_STEPS * max(1, heads)))))


def _kept(mask: BlockMask, side: int) -> Tensor:
    return (255 * _pooled(mask.to_dense()[-1].float(), side)).round().to(torch.uint8).cpu()


def _relative(mass: Tensor, side: int) -> Tensor:
    cells = _pooled(mass, side)
    mean = cells.mean(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(cells.dtype).tiny)
    return (cells / mean).half().cpu()  # at most the number of cells, which float16 can say


def _pooled(heads: Tensor, side: int) -> Tensor:
    """Means ``[h, y, x]`` of cells of ``[h, m, n]``, no more than `side` of them on either side."""
    rows, columns = heads.shape[-2:]
    size = (min(side, rows), min(side, columns))
    return functional.adaptive_avg_pool2d(heads[None], size)[0]
