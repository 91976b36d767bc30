"""MaskReading: what an attention mask says if it is one padding mask for all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# An additive mask hides a key with this or less. Models add -10000 (-9984 in bfloat16), the least
# number of a dtype, or -inf; exp(-1000) is 0 even in float64, and scores differ by hundreds at most.
HIDDEN = -1000.0
_CHUNK = 1 << 24  # entries of a query-dependent mask that are looked at together


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MaskReading:
    """One way to read a mask ``[b or 1, h or 1, q or 1, s]``; nothing here waits for a device.

    ``lengths`` int64 ``[b]``: valid keys of each batch item. ``facts`` int64: whether the mask says
    just that, the least length, and for every order asked for whether the valid keys come first in it.
    """

    lengths: Tensor
    facts: Tensor

    @classmethod
    def of(
        cls, rows: Tensor, batch: int, orders: Sequence[Tensor | None], *, faint: bool = False
    ) -> MaskReading:
        """Of a bool mask, or an additive one: 0 for valid keys and `HIDDEN` or less for the others.

        With `faint` of a mask that adds 1 between valid tokens and nothing elsewhere.
        """
        tokens = rows.shape[3]
        keys, alike = _keys(rows, faint=faint)
        keys = keys.expand(batch, tokens)
        lengths = keys.sum(dim=1)
        prefix = torch.arange(tokens, device=keys.device) < lengths[:, None]
        fitting = [
            (keys if order is None else keys[:, order.to(keys.device)]) == prefix
            for order in orders
        ]
        facts = [alike, lengths.min(), *(x.all() for x in fitting)]
        return cls(lengths=lengths, facts=torch.stack([fact.long() for fact in facts]))


def _keys(rows: Tensor, *, faint: bool) -> tuple[Tensor, Tensor]:
    """Which keys every query sees, bool ``[b or 1, s]``, and whether that is all the mask says.

    Rows of hidden tokens may be empty. What such a query computes instead does not matter, as long as
    it is finite: it is hidden from everyone as a key, and attention over the valid keys is finite.
    Where padding is only faint it is not hidden, and its rows must be empty.
    """
    queries = rows.shape[2]
    seen = rows[:, 0, 0] if queries == 1 else rows[:, 0].diagonal(dim1=-2, dim2=-1)
    keys = _visible(seen, faint=faint)
    alike = torch.ones((), dtype=torch.bool, device=rows.device)
    step = max(1, _CHUNK // rows[:, :, 0].numel())
    for first in range(0, queries, step):
        part = rows[:, :, first : first + step]
        shown = _visible(part, faint=faint)
        same = (shown == keys[:, None, None]).all(dim=-1)
        if queries > 1:
            hidden = ~keys[:, None, first : first + step]
            same = (same & ~hidden if faint else same) | (hidden & ~shown.any(dim=-1))
        alike &= same.all()
        if rows.dtype != torch.bool:  # no entry may say anything else
            alike &= (shown | ((part == 0) if faint else (part <= HIDDEN))).all()
    return keys, alike


def _visible(rows: Tensor, *, faint: bool) -> Tensor:
    return rows if rows.dtype == torch.bool else rows == float(faint)


def even(rows: Tensor) -> Tensor:
    """Whether an additive mask adds the same to every score, so that softmax is as without it.

    Chroma's mask does so where the text fills its room; where it does not, it weighs the padding less.
    """
    if rows.dtype == torch.bool:
        return torch.zeros((), dtype=torch.bool, device=rows.device)
    least, most = rows.aminmax()
    return (least == most) & (least > HIDDEN)
