"""The warp-specialised forward kernel for Hopper: forward.py's result, with copies handed over.

A producer warp copies key and value tiles with the bulk copy engine while two groups of four warps
multiply, so that one group's softmax hides behind the other's products. What that needs of the compiler
differs from forward.py: every tile comes through a tensor descriptor (queries too), and the number of a
block is loaded inside the loop, since the producer runs ahead anyway.

Off until it has been checked on a GPU: set SPARSEDIFF_HOPPER=1 to use it. It takes listed rows of whole
key blocks only (no padding, no ragged keys, no rules), head dims 64 and 128, bfloat16 and float16; the
other kernel computes everything else. Shapes, formula and exactness as in forward.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparsediff.kernels.triton.walk import work_item


@triton.jit
def hopper_forward(
    Q, K, V, OUT, LSE, COUNTS, INDICES, ORDER, scale_log2,
    q_batch, q_token, q_head, k_batch, k_head, v_batch, v_head, o_batch, o_token, o_head,
    count_batch, count_head, list_batch, list_head, list_row, heads, q_len, q_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """One program per ROWS queries of a head; K and V describe ``[b * s, heads * d]`` matrices."""
    PARTS: tl.constexpr = Q_BLOCK // ROWS
    SPLIT: tl.constexpr = BLOCK // COLUMNS
    batch, head, row, part = work_item(ORDER, True, PARTS, heads, q_blocks)
    signed = tl.load(COUNTS + batch * count_batch + head * count_head + row)
    count = tl.abs(signed)
    full = signed < 0
    start = (
        batch.to(tl.int64) * list_batch
        + head.to(tl.int64) * list_head
        + row.to(tl.int64) * list_row
    )
    first = row * Q_BLOCK + part * ROWS
    # The compiler splits the queries between the two groups, which takes a descriptor made here.
    q_start = Q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    q_rows = tl.make_tensor_descriptor(q_start, [q_len, D], [q_token, 1], [ROWS, D])
    q = q_rows.load([first, 0])
    m = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    for i in tl.range(0, count * SPLIT, warp_specialize=True):
        step = i // SPLIT
        listed = tl.load(INDICES + start + tl.where(full, 0, step))
        block = tl.where(full, step, listed)
        token = block * BLOCK + (i % SPLIT) * COLUMNS
        k = K.load([batch * k_batch + token, head * k_head])
        scores = tl.dot(q, k.T)
        highest = tl.maximum(m, tl.max(scores, 1) * scale_log2)
        weights = tl.math.exp2(scores * scale_log2 - highest[:, None])
        shrink = tl.math.exp2(m - highest)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        v = V.load([batch * v_batch + token, head * v_head])
        acc = tl.dot(weights.to(v.dtype), v, acc)
        m = highest
    some = tl.where(total > 0, total, 1.0)
    acc = acc / some[:, None]
    rows = first + tl.arange(0, ROWS)
    o_row = OUT + batch.to(tl.int64) * o_batch + head.to(tl.int64) * o_head
    o_tile = o_row + rows.to(tl.int64)[:, None] * o_token + tl.arange(0, D)[None, :]
    tl.store(o_tile, acc.to(OUT.dtype.element_ty), mask=(rows < q_len)[:, None])
    lse = tl.where(total > 0, (m + tl.math.log2(some)) * 0.6931471805599453, -float("inf"))
    tl.store(LSE + (batch * heads + head).to(tl.int64) * q_len + rows, lse, mask=rows < q_len)
