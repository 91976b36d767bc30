"""The pooled kernel: the blocks a sparse call left out, each as one mean key and one mean value.

    O, LSE  <-  softmax over the computed keys and, for every block n left out, one more key of score
                scale * q . mean(k_n) + ln |n| and value mean(v_n)

It goes on where the forward kernel ended: its output is one term of weight exp(LSE), and the pooled
blocks are added to it by online softmax (the pooled branch of Video-BLADE §3.1, over unselected blocks
only). One program per ``rows`` queries of a head, over all pooled blocks in tiles.

Shapes: q and out ``[b, s, h, d]``; mean keys and values ``[b, n, h, d]``; ln |n| float32 ``[b,
n]``, -inf for a block of padding; chosen uint8 ``[b or 1, h or 1, m, n]``; LSE float32 ``[b, h,
s]``. Exactness as in the forward kernel, whose output is rounded once more on the way; bitwise
repeatable.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparsediff.kernels.triton.forward import load_rows
from sparsediff.kernels.triton.walk import NOT_SPECIALIZED, work_item


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def pooled_kernel(
    Q, POOLED_K, POOLED_V, LOG_COUNT, CHOSEN, PART, PART_LSE, OUT, LSE, scale_log2,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    p_batch, p_token, p_head, o_batch, o_token, o_head, chosen_batch, chosen_head,
    heads, q_len, q_blocks, kv_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_BLOCK: tl.constexpr,
    D: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """See the module; PART and PART_LSE are the forward kernel's results."""
    PARTS: tl.constexpr = Q_BLOCK // ROWS
    batch, head, row, part = work_item(LOG_COUNT, False, PARTS, heads, q_blocks)
    wide_batch = batch.to(tl.int64)
    wide_head = head.to(tl.int64)
    inner = tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    columns = tl.arange(0, COLUMNS)
    rows = row * Q_BLOCK + part * ROWS + inner
    first = (row * Q_BLOCK + part * ROWS).to(tl.int64)
    q_tile = Q + wide_batch * q_batch + wide_head * q_head + first * q_token
    q = load_rows(q_tile + inner[:, None] * q_token + dims[None, :], rows, q_len, D, DIM, True)
    p_tile = PART + wide_batch * p_batch + wide_head * p_head + first * p_token
    known = load_rows(p_tile + inner[:, None] * p_token + dims[None, :], rows, q_len, D, DIM, True)
    place = (batch * heads + head).to(tl.int64) * q_len + rows
    m = tl.load(PART_LSE + place, mask=rows < q_len, other=0.0) * 1.4426950408889634
    total = tl.where(m == -float("inf"), 0.0, 1.0)
    acc = known.to(tl.float32)
    k_tile = POOLED_K + wide_batch * k_batch + wide_head * k_head
    k_tile = k_tile + columns[:, None] * k_token + dims[None, :]
    v_tile = POOLED_V + wide_batch * v_batch + wide_head * v_head
    v_tile = v_tile + columns[:, None] * v_token + dims[None, :]
    chosen_row = CHOSEN + wide_batch * chosen_batch + wide_head * chosen_head
    chosen_row += row.to(tl.int64) * kv_blocks
    for start in range(0, kv_blocks, COLUMNS):
        block = start + columns
        there = block < kv_blocks
        chosen = tl.load(chosen_row + block, mask=there, other=1)
        count = tl.load(LOG_COUNT + wide_batch * kv_blocks + block, mask=there, other=0.0)
        bias = tl.where(chosen != 0, -float("inf"), count * 1.4426950408889634)
        k = load_rows(k_tile + start * k_token, block, kv_blocks, D, DIM, True)
        v = load_rows(v_tile + start * v_token, block, kv_blocks, D, DIM, True)
        scores = tl.dot(q, k.T, input_precision="ieee") * scale_log2 + bias[None, :]
        highest = tl.maximum(m, tl.max(scores, 1))
        # A row that has met no key yet has no maximum to subtract.
        base = tl.where(highest == -float("inf"), 0.0, highest)
        weights = tl.math.exp2(scores - base[:, None])
        shrink = tl.math.exp2(m - base)
        total = total * shrink + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        m = highest
    some = tl.where(total > 0, total, 1.0)
    acc = acc / some[:, None]
    inside = (rows < q_len)[:, None]
    if DIM < D:
        inside = inside & (dims < DIM)[None, :]
    o_tile = OUT + wide_batch * o_batch + wide_head * o_head + first * o_token
    o_tile = o_tile + inner[:, None] * o_token + dims[None, :]
    tl.store(o_tile, acc.to(OUT.dtype.element_ty), mask=inside)
    lse = tl.where(total > 0, (m + tl.math.log2(some)) * 0.6931471805599453, -float("inf"))
    tl.store(LSE + place, lse, mask=rows < q_len)
