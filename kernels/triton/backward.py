"""The backward kernels: dq over the rows' lists, dk and dv over the transposed lists, no atomics.

    p = exp(s - LSE),  dv = p^T do,  ds = p (do v^T - delta),  dq = scale ds k,  dk = scale ds^T q,
    delta_r = do_r . o_r - dLSE_r

(FlashAttention-2's backward with the gradient of the LSE). Every output tile belongs to one
program, and every program sums in the order of its list: the transposed lists come from a stable
sort, so equal calls give equal bits. Scores are scaled after the product as in the forward kernel,
so that the recomputed p matches the saved LSE.

Shapes: q, o, do, dq ``[b, s, h, d]``; k, v, dk, dv ``[b, t, h, d]``, any strides with the last 1;
LSE and delta float32 ``[b, h, s]``. Sums in float32, p and ds rounded to the inputs' dtype before
they are multiplied. Bitwise repeatable.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparsediff.kernels.triton.forward import load_rows
from sparsediff.kernels.triton.walk import NOT_SPECIALIZED, list_block, work_item


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def delta_kernel(
    OUT, GRAD_OUT, GRAD_LSE, DELTA,
    o_batch, o_token, o_head, do_batch, do_token, do_head, heads, q_len, row_blocks,
    ROWS: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, WITH_LSE: tl.constexpr,
):  # fmt: skip
    """delta = sum(o * do) - dLSE: one program per ROWS queries of a head."""
    item = tl.program_id(0)
    row = item % row_blocks
    pair = item // row_blocks
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    rows = row * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    first = (row * ROWS).to(tl.int64)
    inner = tl.arange(0, ROWS)[:, None]
    o_tile = OUT + batch * o_batch + head * o_head + first * o_token
    g_tile = GRAD_OUT + batch * do_batch + head * do_head + first * do_token
    o = load_rows(o_tile + inner * o_token + dims[None, :], rows, q_len, D, DIM, True)
    g = load_rows(g_tile + inner * do_token + dims[None, :], rows, q_len, D, DIM, True)
    delta = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    place = pair.to(tl.int64) * q_len + rows
    if WITH_LSE:
        delta -= tl.load(GRAD_LSE + place, mask=rows < q_len, other=0.0)
    tl.store(DELTA + place, delta, mask=rows < q_len)


@triton.jit
def grad_q_tile(q, k, v, g, lse, delta, acc, scale_log2, left, MASKED: tl.constexpr):
    """One tile of keys into dq / scale."""
    scores = tl.dot(q, k.T, input_precision="ieee") * scale_log2
    weights = tl.math.exp2(scores - lse[:, None])
    if MASKED:
        weights = tl.where((tl.arange(0, k.shape[0]) < left)[None, :], weights, 0.0)
    slope = tl.dot(g, v.T, input_precision="ieee") - delta[:, None]
    return tl.dot((weights * slope).to(k.dtype), k, acc, input_precision="ieee")


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def grad_q_kernel(
    Q, K, V, GRAD_OUT, GRAD_Q, LSE, DELTA, COUNTS, INDICES, ORDER, LENS, scale_log2, scale,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    do_batch, do_token, do_head, dq_batch, dq_token, dq_head,
    count_batch, count_head, list_batch, list_head, list_row,
    heads, q_len, kv_len, q_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
    D: tl.constexpr, DIM: tl.constexpr, ORDERED: tl.constexpr, PADDED: tl.constexpr,
    TAIL: tl.constexpr,
):  # fmt: skip
    """dq: one program per ROWS queries of a head, over the key blocks of their list."""
    PARTS: tl.constexpr = Q_BLOCK // ROWS
    SPLIT: tl.constexpr = BLOCK // COLUMNS
    batch, head, row, part = work_item(ORDER, ORDERED, PARTS, heads, q_blocks)
    wide_batch = batch.to(tl.int64)
    wide_head = head.to(tl.int64)
    signed = tl.load(COUNTS + wide_batch * count_batch + wide_head * count_head + row)
    count = tl.abs(signed)
    listed = signed > 0
    start = wide_batch * list_batch + wide_head * list_head + row.to(tl.int64) * list_row
    length = kv_len
    if PADDED:
        length = tl.load(LENS + batch).to(tl.int32)
    inner = tl.arange(0, ROWS)
    rows = row * Q_BLOCK + part * ROWS + inner
    first = (row * Q_BLOCK + part * ROWS).to(tl.int64)
    dims = tl.arange(0, D)
    keys = tl.arange(0, COLUMNS)
    q_tile = Q + wide_batch * q_batch + wide_head * q_head + first * q_token
    g_tile = GRAD_OUT + wide_batch * do_batch + wide_head * do_head + first * do_token
    q = load_rows(q_tile + inner[:, None] * q_token + dims[None, :], rows, q_len, D, DIM, True)
    g = load_rows(g_tile + inner[:, None] * do_token + dims[None, :], rows, q_len, D, DIM, True)
    place = (batch * heads + head).to(tl.int64) * q_len + rows
    lse = tl.load(LSE + place, mask=rows < q_len, other=float("inf")) * 1.4426950408889634
    lse = tl.where(lse == -float("inf"), float("inf"), lse)
    delta = tl.load(DELTA + place, mask=rows < q_len, other=0.0)
    k_tile = K + wide_batch * k_batch + wide_head * k_head
    k_tile = k_tile + keys[:, None] * k_token + dims[None, :]
    v_tile = V + wide_batch * v_batch + wide_head * v_head
    v_tile = v_tile + keys[:, None] * v_token + dims[None, :]
    acc = tl.zeros([ROWS, D], tl.float32)
    whole = count
    if TAIL:
        last = (length + BLOCK - 1) // BLOCK - 1
        final = tl.load(INDICES + start + count - 1, mask=listed & (count > 0), other=last)
        partial = (final == last) & (length % BLOCK != 0) & (count > 0)
        whole = count - partial.to(tl.int32)
    block = list_block(INDICES, start, 0, count, listed)
    for i in range(whole * SPLIT):
        token = (block * BLOCK + (i % SPLIT) * COLUMNS).to(tl.int64)
        block = list_block(INDICES, start, (i + 1) // SPLIT, count, listed)
        k = load_rows(k_tile + token * k_token, keys, 0, D, DIM, False)
        v = load_rows(v_tile + token * v_token, keys, 0, D, DIM, False)
        acc = grad_q_tile(q, k, v, g, lse, delta, acc, scale_log2, 0, False)
    if TAIL:
        for i in tl.range(whole * SPLIT, count * SPLIT, num_stages=1):  # not unrolled: see forward
            token = block * BLOCK + (i % SPLIT) * COLUMNS
            left = length - token
            k = load_rows(k_tile + token.to(tl.int64) * k_token, keys, left, D, DIM, True)
            v = load_rows(v_tile + token.to(tl.int64) * v_token, keys, left, D, DIM, True)
            acc = grad_q_tile(q, k, v, g, lse, delta, acc, scale_log2, left, True)
    inside = (rows < q_len)[:, None]
    if DIM < D:
        inside = inside & (dims < DIM)[None, :]
    dq_tile = GRAD_Q + wide_batch * dq_batch + wide_head * dq_head + first * dq_token
    dq_tile = dq_tile + inner[:, None] * dq_token + dims[None, :]
    tl.store(dq_tile, (acc * scale).to(GRAD_Q.dtype.element_ty), mask=inside)


@triton.jit
def grad_kv_tile(
    k, v, dk, dv, q_tile, g_tile, lse_row, delta_row, token, q_token, do_token, q_len, scale_log2,
    ROWS: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One tile of queries into dk / scale and dv; scores are computed transposed, keys x queries."""
    rows = token + tl.arange(0, ROWS)
    wide = token.to(tl.int64)
    q = load_rows(q_tile + wide * q_token, rows, q_len, D, DIM, MASKED)
    g = load_rows(g_tile + wide * do_token, rows, q_len, D, DIM, MASKED)
    if MASKED:
        lse = tl.load(lse_row + rows, mask=rows < q_len, other=float("inf"))
        delta = tl.load(delta_row + rows, mask=rows < q_len, other=0.0)
    else:
        lse = tl.load(lse_row + rows)
        delta = tl.load(delta_row + rows)
    scores = tl.dot(k, q.T, input_precision="ieee") * scale_log2
    weights = tl.math.exp2(scores - (lse * 1.4426950408889634)[None, :])
    dv = tl.dot(weights.to(g.dtype), g, dv, input_precision="ieee")
    slope = tl.dot(v, g.T, input_precision="ieee") - delta[None, :]
    dk = tl.dot((weights * slope).to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def grad_kv_kernel(
    Q, K, V, GRAD_OUT, GRAD_K, GRAD_V, LSE, DELTA, COUNTS, STARTS, ROW_LIST, LENS, scale_log2, scale,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    do_batch, do_token, do_head, dk_batch, dk_token, dk_head, dv_batch, dv_token, dv_head,
    list_batch, list_head, heads, q_len, kv_len, kv_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
    D: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """dk and dv: one program per COLUMNS keys of a head, over the query blocks that compute them."""
    PARTS: tl.constexpr = BLOCK // COLUMNS
    SPLIT: tl.constexpr = Q_BLOCK // ROWS
    item = tl.program_id(0)
    part = item % PARTS
    block = item // PARTS % kv_blocks
    pair = item // PARTS // kv_blocks
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    entry = batch * list_batch + head * list_head + block
    length = kv_len
    if PADDED:
        length = tl.load(LENS + batch).to(tl.int32)
    token = block * BLOCK + part * COLUMNS
    # Padding keys have no gradient, and a query without keys has none either (its LSE is -inf).
    count = tl.load(COUNTS + entry, mask=token < length, other=0)
    start = tl.load(STARTS + entry)
    columns = tl.arange(0, COLUMNS)
    dims = tl.arange(0, D)
    wide = token.to(tl.int64)
    k_tile = K + batch * k_batch + head * k_head + wide * k_token
    v_tile = V + batch * v_batch + head * v_head + wide * v_token
    left = length - token
    k = load_rows(k_tile + columns[:, None] * k_token + dims[None, :], columns, left, D, DIM, True)
    v = load_rows(v_tile + columns[:, None] * v_token + dims[None, :], columns, left, D, DIM, True)
    inner = tl.arange(0, ROWS)
    q_tile = Q + batch * q_batch + head * q_head + inner[:, None] * q_token + dims[None, :]
    g_tile = GRAD_OUT + batch * do_batch + head * do_head
    g_tile = g_tile + inner[:, None] * do_token + dims[None, :]
    lse_row = LSE + pair.to(tl.int64) * q_len
    delta_row = DELTA + pair.to(tl.int64) * q_len
    dk = tl.zeros([COLUMNS, D], tl.float32)
    dv = tl.zeros([COLUMNS, D], tl.float32)
    row = tl.load(ROW_LIST + start, mask=count > 0, other=0)
    # A partial last block masks loads alone, in every turn: fewer registers than a loop of its own, and
    # the copies stay asynchronous.
    for i in range(count * SPLIT):
        query = row * Q_BLOCK + (i % SPLIT) * ROWS
        step = (i + 1) // SPLIT
        row = tl.load(ROW_LIST + start + step, mask=step < count, other=0)
        dk, dv = grad_kv_tile(
            k, v, dk, dv, q_tile, g_tile, lse_row, delta_row, query, q_token, do_token, q_len,
            scale_log2, ROWS, D, DIM, TAIL,
        )  # fmt: skip
    # A program of padding keys and a real one write 0 beyond the length.
    present = (columns < left)[:, None]
    dk = tl.where(present, dk * scale, 0.0)
    dv = tl.where(present, dv, 0.0)
    inside = (token + columns < kv_len)[:, None]
    if DIM < D:
        inside = inside & (dims < DIM)[None, :]
    dk_tile = GRAD_K + batch * dk_batch + head * dk_head + wide * dk_token
    dv_tile = GRAD_V + batch * dv_batch + head * dv_head + wide * dv_token
    dk_tile = dk_tile + columns[:, None] * dk_token + dims[None, :]
    dv_tile = dv_tile + columns[:, None] * dv_token + dims[None, :]
    tl.store(dk_tile, dk.to(GRAD_K.dtype.element_ty), mask=inside)
    tl.store(dv_tile, dv.to(GRAD_V.dtype.element_ty), mask=inside)
