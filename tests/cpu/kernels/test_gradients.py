"""Autograd through the gather and reference backends, against autograd through dense float64."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import token_mask

from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention

BLOCK = (16, 24)


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(7)
    return [
        torch.randn(2, n, 2, 12, generator=noise, dtype=torch.float64).to(dtype).requires_grad_()
        for n in (50, 65, 65)
    ]


def pattern() -> tuple[torch.Tensor, BlockMask, torch.Tensor]:
    dense = torch.rand(1, 2, 4, 3, generator=torch.Generator().manual_seed(8)) < 0.6
    dense[:, 0, 1] = False  # a query block without keys must not spoil the others
    mask = BlockMask.from_dense(dense, block_size=BLOCK, q_len=50, kv_len=65)
    return dense, mask, torch.tensor([65, 30])


@pytest.mark.parametrize("with_lse", [False, True])
@pytest.mark.parametrize("backend", ["reference", "gather"])
def test_attention(backend: str, with_lse: bool, ran: list[str]) -> None:
    dense, mask, lens = pattern()
    q, k, v = tensors(torch.float32)
    found = block_sparse_attention(
        q, k, v, mask, scale=0.3, return_lse=with_lse, backend=backend, kv_lens=lens
    )
    out, lse = found if with_lse else (found, None)
    assert ran == [backend]

    q64, k64, v64 = tensors(torch.float64)
    qh, kh, vh = (x.transpose(1, 2) for x in (q64, k64, v64))
    keep = token_mask(dense, BLOCK, 50, 65, lens)
    filled = torch.finfo(torch.float64).min
    scores = ((qh @ kh.mT) * 0.3).masked_fill(~keep, filled)
    weights = scores.softmax(dim=-1) * keep
    right = (weights @ vh).transpose(1, 2)
    rows = keep.any(dim=-1)

    loss, loss64 = out.sin().sum(), right.sin().sum()
    if lse is not None:
        loss = loss + lse[rows.expand_as(lse)].cos().sum()
        loss64 = loss64 + scores.logsumexp(dim=-1)[rows.expand_as(lse)].cos().sum()
    loss.backward()
    loss64.backward()
    for mine, exact in zip((q, k, v), (q64, k64, v64), strict=True):
        assert mine.grad is not None
        assert exact.grad is not None
        assert exact.grad.abs().max() > 0.1
        assert torch.allclose(mine.grad.double(), exact.grad, atol=2e-5)


@pytest.mark.parametrize("backend", ["reference", "gather"])
def test_mass(backend: str, ran: list[str]) -> None:
    q, k, _ = tensors(torch.float32)
    lse = torch.full((2, 2, 50), 3.0, requires_grad=True)
    block_mass(q, k, lse, block_size=BLOCK, scale=0.3, backend=backend).sin().sum().backward()
    assert ran == [backend]
    q64, k64, _ = tensors(torch.float64)
    lse64 = torch.full((2, 2, 50), 3.0, requires_grad=True, dtype=torch.float64)
    scores = (q64.transpose(1, 2) @ k64.transpose(1, 2).mT) * 0.3
    weights = (scores - lse64[..., None]).exp()
    padded = torch.nn.functional.pad(weights, (0, 7, 0, 14)).view(2, 2, 4, 16, 3, 24)
    padded.sum(dim=(3, 5)).sin().sum().backward()
    for mine, exact in ((q, q64), (k, k64), (lse, lse64)):
        assert mine.grad is not None
        assert exact.grad is not None
        assert torch.allclose(mine.grad.double(), exact.grad, atol=2e-5)
