"""Pooled stand-ins for dropped blocks: against brute force, and exact where keys are alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparsediff.kernels import BlockMask, block_sparse_attention, dense_attention_lse
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.registry import find_backend
from sparsediff.kernels.remainder import attention, pool_blocks


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


BACKENDS = [pytest.param(name, id=name) for name in ("cpu", "gather", "reference")]


def compute(name: str, tensors: list[torch.Tensor], mask: BlockMask, **rest: Any) -> torch.Tensor:
    q, k, v = tensors
    pooled = pool_blocks(k, v, mask.block_size[1], rest.get("kv_lens"))
    inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, pooled=pooled, **rest)
    backend = find_backend(name)
    assert not backend.reasons(inputs)
    return attention(backend, inputs)[0]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("block", "lens"), [((4, 4), [26, 26]), ((8, 5), [26, 17]), ((13, 2), [26, 9])]
)
def test_equals_brute_force(name: str, block: tuple[int, int], lens: list[int]) -> None:
    noise = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 26, 3, 8, generator=noise) for _ in range(3)]
    shape = (2, 3, -(-26 // block[0]), -(-26 // block[1]))
    chosen = torch.rand(shape, generator=noise) < 0.4
    mask = BlockMask.from_dense(chosen, block_size=block, q_len=26, kv_len=26)
    kv_lens = None if lens == [26, 26] else torch.tensor(lens)
    merged = compute(name, tensors, mask, scale=1.0, kv_lens=kv_lens)
    torch.testing.assert_close(merged, brute_force(*tensors, mask, lens), atol=1e-5, rtol=1e-5)


def test_float64_is_merged_in_float32() -> None:
    noise = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 26, 2, 8, generator=noise, dtype=torch.float64) for _ in range(3)]
    chosen = torch.rand((1, 2, 7, 7), generator=noise) < 0.4
    mask = BlockMask.from_dense(chosen, block_size=(4, 4), q_len=26, kv_len=26)
    merged = compute("reference", tensors, mask, scale=1.0)
    assert merged.dtype == torch.float64
    torch.testing.assert_close(merged, brute_force(*tensors, mask, [26]), atol=1e-5, rtol=1e-5)


def test_native_kernel_pools_itself_in_bfloat16() -> None:
    """Error budget: rounding of inputs, weights and output to 8 bits, a few 2^-8 of values near 1."""
    backend = find_backend("cpu")
    if not backend.pools:
        pytest.skip("no C++ compiler here: the gather path adds the pooled blocks afterwards")
    noise = torch.Generator().manual_seed(2)
    tensors = [torch.randn(1, 300, 2, 32, generator=noise).bfloat16() for _ in range(3)]
    chosen = torch.rand(1, 2, 10, 75, generator=noise) < 0.3
    mask = BlockMask.from_dense(chosen, block_size=(32, 4), q_len=300, kv_len=300)
    scale = 32**-0.5
    found = compute("cpu", tensors, mask, scale=scale).float()
    wanted = compute("reference", [x.float() for x in tensors], mask, scale=scale)
    torch.testing.assert_close(found, wanted, atol=3 * 2**-8, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
def test_exact_where_the_dropped_keys_are_alike(name: str) -> None:
    noise = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 32, 2, 8, generator=noise) for _ in range(3))
    k[:, 16:24] = k[:, 16:17]
    chosen = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    chosen[..., 2] = False
    mask = BlockMask.from_dense(chosen, block_size=8, q_len=32, kv_len=32)
    truth = dense_attention_lse(q, k, v)[0]
    merged = compute(name, [q, k, v], mask, scale=8**-0.5)
    torch.testing.assert_close(merged, truth, atol=1e-5, rtol=1e-5)
    assert (block_sparse_attention(q, k, v, mask) - truth).abs().max() > 0.05


@pytest.mark.parametrize("name", BACKENDS)
def test_full_mask_is_left_alone(name: str) -> None:
    tensors = [torch.randn(1, 20, 2, 8) for _ in range(3)]
    mask = BlockMask.full(block_size=8, q_len=20, kv_len=20)
    out = block_sparse_attention(*tensors, mask, backend=name)
    torch.testing.assert_close(compute(name, tensors, mask, scale=8**-0.5), out)
