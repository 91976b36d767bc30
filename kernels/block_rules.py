"""Rules: patterns of Sparse-vDiT whose key blocks can be computed instead of loaded from a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count, block_shape
from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagonals:
    """Keys at most ``half_width`` tokens from the query, and from it by multiples of ``period``.

    Without a period one band around the diagonal (the diagonal mode); with the tokens of a frame as
    period the same place in every frame (multi-diagonal). Raises SparseError for a negative width or a
    period below 1.
    """

    half_width: int = 0
    period: int | None = None

    def __post_init__(self) -> None:
        if self.half_width < 0 or (self.period is not None and self.period < 1):
            raise SparseError(f"{self}: needs half_width >= 0 and a period of at least 1 token.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stripes:
    """Keys ``first`` to ``first + width``, repeated every ``period`` tokens: the same for all queries.

    Raises SparseError unless first >= 0 and 1 <= width <= period.
    """

    period: int
    width: int
    first: int = 0

    def __post_init__(self) -> None:
        if not (self.first >= 0 and 1 <= self.width <= self.period):
            raise SparseError(f"{self}: needs first >= 0 and 1 <= width <= period, in tokens.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Full:
    """Every key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """No key at all: the head gives 0 and costs nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The blocks of the `listed` map: a pattern without a rule among heads that have one."""


Rule = Diagonals | Stripes | Full | Skip | Listed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockRules:
    """The rules of a BlockMask's heads, as the kernels read them.

    ``table`` int32 ``[h, 4]``: period, run, offset, slope; key block x of query block r is taken where
    ``(x * key block - slope * r * query block + offset) mod period < run``. Period 0 stands for a head
    without a rule. The first ``lead`` and last ``trail`` key blocks are always taken.
    """

    table: Tensor
    lead: int
    trail: int

    def to(self, device: torch.device | str) -> BlockRules:
        """The same rules with their table on `device`."""
        return BlockRules(table=self.table.to(device), lead=self.lead, trail=self.trail)


def rule_mask(
    rules: Sequence[Rule],
    *,
    block_size: int | tuple[int, int],
    q_len: int,
    kv_len: int,
    text_before: int = 0,
    text_after: int = 0,
    listed: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> BlockMask:
    """The BlockMask of one rule per head: every block pair that holds a token pair of the rule.

    Blocks that hold text, ``text_before`` and ``text_after`` tokens at the ends, are dense both
    ways in all heads but `Skip`. ``listed`` bool ``[1, h, m, n]`` is the pattern of the `Listed`
    heads. The mask keeps its rules, and kernels that can compute them instead of reading lists do
    so.

    Raises SparseError without rules, for text longer than the sequence, and where `listed` does not
    fit.
    """
    rows, columns = block_shape(block_size)
    m, n = block_count(q_len, rows), block_count(kv_len, columns)
    _check(rules, listed, (1, len(rules), m, n), text_before + text_after, min(q_len, kv_len))
    entries = [_entry(rule, (rows, columns), q_len, kv_len) for rule in rules]
    table = torch.tensor(entries, dtype=torch.int32, device=device)
    lead = block_count(text_before, columns)
    trail = n - (kv_len - text_after) // columns if text_after else 0
    period, run, offset, slope = table.long().T[:, :, None, None]
    row = torch.arange(m, device=device)[:, None]
    column = torch.arange(n, device=device)
    place = column * columns - slope * row * rows + offset
    taken = (place % period.clamp(min=1)) < run
    if listed is not None:
        taken = torch.where(period > 0, taken, listed[0].to(device))
    text_row = (row * rows < text_before) | ((row + 1) * rows > q_len - text_after) & (
        text_after > 0
    )
    taken = taken | text_row | (column < lead) | (column >= n - trail)
    for head, rule in enumerate(rules):
        if isinstance(rule, Full | Skip):
            taken[head] = isinstance(rule, Full)
    mask = BlockMask.from_dense(
        taken[None], block_size=(rows, columns), q_len=q_len, kv_len=kv_len, implied_full=True
    )
    return mask.with_rules(BlockRules(table=table, lead=lead, trail=trail))


def _entry(
    rule: Rule, block_size: tuple[int, int], q_len: int, kv_len: int
) -> tuple[int, int, int, int]:
    """Period, run, offset and slope: a block is taken if any of its token pairs is."""
    rows, columns = block_size
    if isinstance(rule, Diagonals):
        run = rows + columns - 1 + 2 * rule.half_width
        offset = columns - 1 + rule.half_width
        return rule.period or q_len + kv_len + 2 * run, run, offset, 1
    if isinstance(rule, Stripes):
        return rule.period, rule.width + columns - 1, columns - 1 - rule.first, 0
    return 0, 0, 0, 0  # full and skipped rows are known by their counts


def _check(
    rules: Sequence[Rule],
    listed: Tensor | None,
    shape: tuple[int, int, int, int],
    text: int,
    tokens: int,
) -> None:
    if not rules:
        raise SparseError("rule_mask needs one rule per head; found none.")
    if not 0 <= text <= tokens:
        raise SparseError(f"{text} tokens of text in a sequence of {tokens}; give fewer.")
    needs = any(isinstance(rule, Listed) for rule in rules)
    if needs and (listed is None or listed.dtype != torch.bool or tuple(listed.shape) != shape):
        found = "none" if listed is None else f"{listed.dtype} {tuple(listed.shape)}"
        raise SparseError(
            f"Listed heads take their blocks from `listed`, bool {shape}; found {found}."
        )
