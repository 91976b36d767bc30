"""How a program finds its rows and walks over their key blocks: from a list, or by the head's rule.

A row's count, as the kernels get it, is positive for a listed row and negative for a row that computes
every block up to there, which needs no list. With rules each head of a launch may follow a pattern of
its own, computed instead of loaded (see `BlockRules`): block x of row r is taken where

    (x * block - slope * r * query block + offset) mod period < run,

and the first `lead` and last `trail` blocks always. Band, multi-diagonal, stripe and full are all that.
Blocks come in ascending order, so only the last one can be partial.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments that change with the length of a video and with the density, and are only added and divided:
# Triton would compile a kernel anew for those that are 1 or multiples of 16, and gain nothing.
NOT_SPECIALIZED = (
    "count_batch", "count_head", "list_batch", "list_head", "list_row", "chosen_batch", "chosen_head",
    "heads", "q_blocks", "kv_blocks", "row_blocks", "programs", "out_rows",
)  # fmt: skip


@triton.jit
def work_item(ORDER, ORDERED: tl.constexpr, PARTS: tl.constexpr, heads, blocks):
    """Batch item, head, block and part of the block of this program, longest work first if ordered."""
    item = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    if ORDERED:
        item = tl.load(ORDER + item)
    return item // blocks // heads, (item // blocks) % heads, item % blocks, part


@triton.jit
def list_block(INDICES, start, i, count, listed):
    """Key block `i` of a row that is listed (from memory) or full (i itself)."""
    return tl.load(INDICES + start + i, mask=listed & (i < count), other=i)


@triton.jit
def rule_of(RULES, head):
    """Period, run, offset and slope of a head, in tokens; period 0 where the head has a list."""
    rule = RULES + head * 4
    return tl.load(rule), tl.load(rule + 1), tl.load(rule + 2), tl.load(rule + 3)


@triton.jit
def rule_phase(block, row_shift, period, BLOCK: tl.constexpr):
    """Where a block lies in its period: in [0, period)."""
    phase = (block * BLOCK + row_shift) % period  # C's remainder: as negative as the dividend
    return tl.where(phase < 0, phase + period, phase)


@triton.jit
def rule_forward(block, phase, period, run, BLOCK: tl.constexpr):
    """From any block to itself, if the run takes it, or to the first block of the next run."""
    blocks = tl.where(phase < run, 0, (period - phase + BLOCK - 1) // BLOCK)
    return block + blocks, tl.where(phase < run, phase, phase + blocks * BLOCK - period)


@triton.jit
def rule_next(block, phase, first, first_phase, period, run, lead, edge, BLOCK: tl.constexpr):
    """The block after `block` on a computed walk, and its phase.

    `first` is where the runs begin behind the lead, `edge` the first block of the trail.
    """
    phase_after = phase + BLOCK
    phase_after = tl.where(phase_after >= period, phase_after - period, phase_after)
    after, phase_after = rule_forward(block + 1, phase_after, period, run, BLOCK)
    in_lead = block + 1 < lead
    enters = block + 1 == lead
    after = tl.where(in_lead, block + 1, tl.where(enters, first, after))
    phase_after = tl.where(in_lead | enters, first_phase, phase_after)
    return tl.where(after > edge, tl.maximum(block + 1, edge), after), phase_after
