"""The block mass kernel: how much attention every pair of blocks holds, the search pass of AdaSpa.

    mass_mn = sum over queries r of block m and keys j of block n of exp(s_rj - LSE_r)

with the LSE of an earlier exact call (AdaSpa Alg. 2), so one product q k^T, no second pass and no
tokens x tokens tensor. One program per ``rows`` queries of one head walks over all key blocks. Queries
with LSE -inf weigh nothing; keys at and beyond the padding weigh nothing.

Shapes: q ``[b, s, h, d]``, k ``[b, t, h, d]``, any strides with the last 1; LSE float32 ``[b, h,
s]``; out float32 ``[b, h, m * parts, n]``, where a block of more queries than a program takes is
written in parts. Exactness: products as in the forward kernel, sums in float32 in a fixed order;
bitwise repeatable.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparsediff.kernels.triton.forward import load_rows
from sparsediff.kernels.triton.walk import NOT_SPECIALIZED


@triton.jit
def mass_of_tile(q, k_tile, token, k_token, offset, scale_log2, left, COLUMNS: tl.constexpr,
                 D: tl.constexpr, DIM: tl.constexpr, MASKED: tl.constexpr):  # fmt: skip
    """What each query gives to one tile of keys."""
    keys = tl.arange(0, COLUMNS)
    # The interpreter counts loops in Python's numbers, which have no `to`.
    first = tl.full([], token, tl.int64) * k_token
    k = load_rows(k_tile + first, keys, left, D, DIM, MASKED)
    scores = tl.dot(q, k.T, input_precision="ieee") * scale_log2 - offset[:, None]
    weights = tl.math.exp2(scores)
    if MASKED:
        weights = tl.where((keys < left)[None, :], weights, 0.0)
    return tl.sum(weights, 1)


@triton.jit
def store_mass(out, before, tile, i, out_row, kept, BLOCKS: tl.constexpr, Q_PART: tl.constexpr,
               SPLIT: tl.constexpr):  # fmt: skip
    """Add tile `i` to the tiles of its key block `before` it; store the block's sums with the last."""
    blocks = tl.arange(0, BLOCKS)
    inside = blocks < kept
    per_row = tile
    if SPLIT > 1:
        per_row += tl.where(i % SPLIT == 0, 0.0, before)
        inside = inside & (i % SPLIT == SPLIT - 1)
    sums = tl.sum(tl.reshape(per_row, [BLOCKS, Q_PART]), 1)
    tl.store(out + i // SPLIT + blocks * out_row, sums, mask=inside)
    return per_row


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def block_mass_kernel(
    Q, K, LSE, OUT, LENS, scale_log2,
    q_batch, q_token, q_head, k_batch, k_token, k_head, lse_batch, lse_head, lse_token,
    heads, q_len, kv_len, programs, out_rows, kv_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, Q_PART: tl.constexpr, BLOCK: tl.constexpr,
    D: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """See the module; Q_PART queries of a block per sum, ROWS // Q_PART sums per program."""
    BLOCKS: tl.constexpr = ROWS // Q_PART
    SPLIT: tl.constexpr = BLOCK // COLUMNS
    item = tl.program_id(0)
    row = item % programs
    head = item // programs % heads
    batch = item // programs // heads
    length = kv_len
    if PADDED:
        length = tl.load(LENS + batch).to(tl.int32)
    rows = row * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    q_row = Q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    q_row += (row * ROWS).to(tl.int64) * q_token
    q = load_rows(
        q_row + tl.arange(0, ROWS)[:, None] * q_token + dims[None, :], rows, q_len, D, DIM, True
    )
    lse_row = LSE + batch.to(tl.int64) * lse_batch + head.to(tl.int64) * lse_head
    lse = tl.load(lse_row + rows * lse_token, mask=rows < q_len, other=float("inf"))
    offset = tl.where(lse == -float("inf"), float("inf"), lse * 1.4426950408889634)
    k_tile = K + batch.to(tl.int64) * k_batch + head.to(tl.int64) * k_head
    k_tile = k_tile + tl.arange(0, COLUMNS)[:, None] * k_token + dims[None, :]
    out = OUT + ((batch * heads + head).to(tl.int64) * out_rows + row * BLOCKS) * kv_blocks
    kept = out_rows - row * BLOCKS
    whole = length // BLOCK * SPLIT
    per_row = tl.zeros([ROWS], tl.float32)
    for i in range(whole):
        tile = mass_of_tile(
            q, k_tile, i * COLUMNS, k_token, offset, scale_log2, 0, COLUMNS, D, DIM, False
        )
        per_row = store_mass(out, per_row, tile, i, kv_blocks, kept, BLOCKS, Q_PART, SPLIT)
    if TAIL:
        # Bounds known only at run time: see the forward kernel.
        for i in tl.range(whole, (length + BLOCK - 1) // BLOCK * SPLIT, num_stages=1):
            left = length - i * COLUMNS
            tile = mass_of_tile(
                q, k_tile, i * COLUMNS, k_token, offset, scale_log2, left, COLUMNS, D, DIM, True
            )
            per_row = store_mass(out, per_row, tile, i, kv_blocks, kept, BLOCKS, Q_PART, SPLIT)
