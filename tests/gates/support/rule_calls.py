"""Patterns of computed heads, and lists that such heads must not read."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.kernels.block_rules import Diagonals, Full, Listed, Rule, Skip, Stripes, rule_mask

TOKENS = 103
RULES: tuple[Rule, ...] = (
    Diagonals(half_width=10),
    Diagonals(period=45, half_width=2),
    Stripes(period=70, width=9, first=11),
    Stripes(period=21, width=4),
    Full(),
    Skip(),
    Listed(),
)


def mixed(
    block: tuple[int, int], *, before: int = 0, after: int = 0, rules: tuple[Rule, ...] = RULES
) -> BlockMask:
    shape = (1, len(rules), block_count(TOKENS, block[0]), block_count(TOKENS, block[1]))
    listed = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    return rule_mask(
        rules, block_size=block, q_len=TOKENS, kv_len=TOKENS,
        text_before=before, text_after=after, listed=listed,
    )  # fmt: skip


def spoilt(mask: BlockMask) -> BlockMask:
    """The mask with lists that would be wrong to read for the heads that have a rule."""
    assert mask.rules is not None
    period = mask.rules.table[:, 0]
    return replace(mask, indices=torch.where((period > 0)[None, :, None, None], 0, mask.indices))
