"""Pooled stand-ins for dropped blocks: against brute force, and exact where keys are alike."""

from __future__ import annotations

import pytest
import torch

from sparsediff.kernels import BlockMask, block_sparse_attention, dense_attention_lse
from sparsediff.kernels.remainder import merge, remainder_attention


def brute_force(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: BlockMask, lens: list[int]
) -> torch.Tensor:
    """One softmax per query over the kept keys and the log-count-weighted means of the others."""
    out = torch.zeros_like(q)
    dense = mask.to_dense().expand(q.shape[0], q.shape[2], -1, -1)
    rows, columns = mask.block_size
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for s in range(q.shape[1]):
                scores, values = [], []
                for n in range(mask.kv_blocks):
                    span = slice(n * columns, min((n + 1) * columns, lens[b]))
                    keys, vals = k[b, span, h], v[b, span, h]
                    if not len(keys):
                        continue
                    if not dense[b, h, s // rows, n]:
                        scores.append(keys.mean(0) @ q[b, s, h] + torch.tensor(len(keys)).log())
                        values.append(vals.mean(0))
                        continue
                    scores += list(keys @ q[b, s, h])
                    values += list(vals)
                weights = torch.stack(scores).softmax(0)
                out[b, s, h] = weights @ torch.stack(values)
    return out


@pytest.mark.parametrize(("block", "lens"), [((4, 4), [26, 26]), ((8, 5), [26, 17])])
def test_equals_brute_force(block: tuple[int, int], lens: list[int]) -> None:
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 26, 3, 8, generator=noise).double().float() for _ in range(3))
    shape = (2, 3, -(-26 // block[0]), -(-26 // block[1]))
    chosen = torch.rand(shape, generator=noise) < 0.4
    chosen[..., 0] = True
    mask = BlockMask.from_dense(chosen, block_size=block, q_len=26, kv_len=26)
    kv_lens = None if lens == [26, 26] else torch.tensor(lens)
    out, lse = block_sparse_attention(q, k, v, mask, scale=1.0, return_lse=True, kv_lens=kv_lens)
    merged = merge(out, lse, *remainder_attention(q, k, v, mask, scale=1.0, kv_lens=kv_lens))
    torch.testing.assert_close(merged, brute_force(q, k, v, mask, lens), atol=1e-5, rtol=1e-5)


def test_exact_where_the_dropped_keys_are_alike() -> None:
    noise = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 32, 2, 8, generator=noise) for _ in range(3))
    k[:, 16:24] = k[:, 16:17]
    chosen = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    chosen[..., 2] = False
    mask = BlockMask.from_dense(chosen, block_size=8, q_len=32, kv_len=32)
    out, lse = block_sparse_attention(q, k, v, mask, return_lse=True)
    truth = dense_attention_lse(q, k, v)[0]
    merged = merge(out, lse, *remainder_attention(q, k, v, mask, scale=8**-0.5))
    torch.testing.assert_close(merged, truth, atol=1e-5, rtol=1e-5)
    assert (out - truth).abs().max() > 0.05


def test_full_mask_is_left_alone() -> None:
    q, k, v = (torch.randn(1, 20, 2, 8) for _ in range(3))
    mask = BlockMask.full(block_size=8, q_len=20, kv_len=20)
    out, lse = block_sparse_attention(q, k, v, mask, return_lse=True)
    merged = merge(out, lse, *remainder_attention(q, k, v, mask, scale=8**-0.5))
    torch.testing.assert_close(merged, out)
