"""The forward kernel: block-sparse softmax attention with its LSE, all heads in one launch.

    O_r = sum_j exp(s_rj - LSE_r) v_j,   LSE_r = ln sum_j exp(s_rj),   s_rj = scale * q_r . k_j

over the keys j of the blocks that the row block of r computes. One program per ``rows`` queries of
one head; it walks over its key blocks in ascending order with a running maximum (online softmax)
and carries the number of the next block through the loop, because a load of that number inside it
would cost one stage of the copy pipeline (an `if` over all blocks would cost the pipeline). Only
the last block can be partial: it is peeled off, and nothing else is masked.

Shapes: q ``[b, s, h, d]``, k and v ``[b, t, h, d]``, any strides with the last 1; out like q; LSE
float32 ``[b, h, s]``. bfloat16, float16: products on tensor cores with float32 sums, weights
rounded to the inputs' dtype. float32: IEEE products. Exactness: every sum in float32, in an order
that depends only on the pattern, so equal calls are bitwise equal.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparsediff.kernels.triton.walk import (
    NOT_SPECIALIZED,
    list_block,
    rule_forward,
    rule_next,
    rule_of,
    rule_phase,
    work_item,
)


@triton.jit
def load_rows(pointers, rows, end, D: tl.constexpr, DIM: tl.constexpr, MASKED: tl.constexpr):
    """A tile ``[rows, D]``: 0 beyond `end` where MASKED, and in the columns beyond DIM."""
    if MASKED:
        inside = (rows < end)[:, None]
        if DIM < D:
            inside = inside & (tl.arange(0, D) < DIM)[None, :]
        return tl.load(pointers, mask=inside, other=0.0)
    if DIM < D:
        return tl.load(pointers, mask=(tl.arange(0, D) < DIM)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def accumulate(q, k, v, m, total, acc, scale_log2, keys_left, MASKED: tl.constexpr):
    """One tile of keys into the running maximum m, sum and output, all for scores in base 2."""
    scores = tl.dot(q, k.T, input_precision="ieee")
    if MASKED:
        scores = tl.where(tl.arange(0, k.shape[0])[None, :] < keys_left, scores, -float("inf"))
    highest = tl.maximum(m, tl.max(scores, 1) * scale_log2)
    weights = tl.math.exp2(scores * scale_log2 - highest[:, None])
    shrink = tl.math.exp2(m - highest)
    total = total * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return highest, total, acc


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def block_sparse_forward(
    Q, K, V, OUT, LSE, COUNTS, INDICES, ORDER, LENS, RULES, scale_log2,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    o_batch, o_token, o_head, count_batch, count_head, list_batch, list_head, list_row,
    heads, q_len, kv_len, q_blocks, kv_blocks, lead, trail,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
    D: tl.constexpr, DIM: tl.constexpr, ORDERED: tl.constexpr, PADDED: tl.constexpr,
    TAIL: tl.constexpr, RULED: tl.constexpr,
):  # fmt: skip
    """See the module; one program per ROWS queries of a head, in tiles of COLUMNS keys."""
    PARTS: tl.constexpr = Q_BLOCK // ROWS
    SPLIT: tl.constexpr = BLOCK // COLUMNS
    batch, head, row, part = work_item(ORDER, ORDERED, PARTS, heads, q_blocks)
    signed = tl.load(COUNTS + batch.to(tl.int64) * count_batch + head * count_head + row)
    count = tl.abs(signed)
    listed = signed > 0
    # Offsets in 64 bits: tokens * heads * dim of a long video leaves 32.
    start = (
        batch.to(tl.int64) * list_batch
        + head.to(tl.int64) * list_head
        + row.to(tl.int64) * list_row
    )
    length = kv_len
    if PADDED:
        length = tl.load(LENS + batch).to(tl.int32)
    last = (length + BLOCK - 1) // BLOCK - 1
    if RULED:
        period, run, offset, slope = rule_of(RULES, head)
        listed = listed & (period == 0)
        ruled = (signed > 0) & (period > 0)
        period = tl.maximum(period, 1)
        shift = offset - slope * row * Q_BLOCK
        # Where the runs begin, behind the blocks that every row computes.
        first, first_phase = rule_forward(
            lead, rule_phase(lead, shift, period, BLOCK), period, run, BLOCK
        )
        edge = kv_blocks - trail
        first = tl.where(first > edge, edge, first)
        block = list_block(INDICES, start, 0, count, listed)
        block = tl.where(ruled, tl.where(lead > 0, 0, first), block)
        phase = first_phase
        has_last = (last >= edge) | (rule_phase(last, shift, period, BLOCK) < run) | (last < lead)
    else:
        block = list_block(INDICES, start, 0, count, listed)
    # The rows and the columns of this program's tiles; offsets inside a tile fit 32 bits.
    rows = row * Q_BLOCK + part * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    keys = tl.arange(0, COLUMNS)
    q_row = Q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    q_row += (row * Q_BLOCK + part * ROWS).to(tl.int64) * q_token
    q = load_rows(
        q_row + tl.arange(0, ROWS)[:, None] * q_token + dims[None, :], rows, q_len, D, DIM, True
    )
    k_tile = K + batch.to(tl.int64) * k_batch + head.to(tl.int64) * k_head
    k_tile = k_tile + keys[:, None] * k_token + dims[None, :]
    v_tile = V + batch.to(tl.int64) * v_batch + head.to(tl.int64) * v_head
    v_tile = v_tile + keys[:, None] * v_token + dims[None, :]
    m = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)

    whole = count
    if TAIL:
        partial = (
            tl.load(INDICES + start + count - 1, mask=listed & (count > 0), other=last) == last
        )
        if RULED:
            partial = partial & (has_last | (signed <= 0) | listed)
        partial = partial & (length % BLOCK != 0) & (count > 0)
        whole = count - partial.to(tl.int32)
    for i in range(whole * SPLIT):
        token = block * BLOCK + (i % SPLIT) * COLUMNS
        step = (i + 1) // SPLIT
        following = list_block(INDICES, start, step, count, listed)
        if RULED:
            walked, phase_after = rule_next(
                block, phase, first, first_phase, period, run, lead, edge, BLOCK
            )
            following = tl.where(ruled, walked, following)
            ends = (i + 1) % SPLIT == 0
            following = tl.where(ruled & ~ends, block, following)
            phase = tl.where(ends, phase_after, phase)
        block = following
        k = load_rows(k_tile + token.to(tl.int64) * k_token, keys, 0, D, DIM, False)
        v = load_rows(v_tile + token.to(tl.int64) * v_token, keys, 0, D, DIM, False)
        m, total, acc = accumulate(q, k, v, m, total, acc, scale_log2, 0, False)
    if TAIL:
        # Bounds known only at run time: the compiler would unroll, and registers would not do.
        for i in tl.range(whole * SPLIT, count * SPLIT, num_stages=1):
            token = block * BLOCK + (i % SPLIT) * COLUMNS
            left = length - token
            k = load_rows(k_tile + token.to(tl.int64) * k_token, keys, left, D, DIM, True)
            v = load_rows(v_tile + token.to(tl.int64) * v_token, keys, left, D, DIM, True)
            m, total, acc = accumulate(q, k, v, m, total, acc, scale_log2, left, True)

    # A row without keys: output 0, LSE -inf.
    some = tl.where(total > 0, total, 1.0)
    acc = acc / some[:, None]
    o_row = OUT + batch.to(tl.int64) * o_batch + head.to(tl.int64) * o_head
    o_row += (row * Q_BLOCK + part * ROWS).to(tl.int64) * o_token
    inside = (rows < q_len)[:, None]
    if DIM < D:
        inside = inside & (dims < DIM)[None, :]
    o_tile = o_row + tl.arange(0, ROWS)[:, None] * o_token + dims[None, :]
    tl.store(o_tile, acc.to(OUT.dtype.element_ty), mask=inside)
    lse = tl.where(total > 0, (m + tl.math.log2(some)) * 0.6931471805599453, -float("inf"))
    lse_row = LSE + (batch * heads + head).to(tl.int64) * q_len
    tl.store(lse_row + rows, lse, mask=rows < q_len)
