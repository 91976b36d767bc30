"""dense_attention_lse: torch's own kernel with its LSE, padding and the corner cases."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask

from sparsediff.kernels import SparseError, dense_attention_lse
from sparsediff.kernels.dense import dense_kernel


def tensors(dtype: torch.dtype, d: int = 24) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randn(2, n, 3, d, generator=noise).to(dtype) for n in (70, 45, 45)]


@pytest.mark.parametrize("kv_lens", [None, [45, 45], [10, 45], [0, 1]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_matches_float64(dtype: torch.dtype, kv_lens: list[int] | None) -> None:
    q, k, v = tensors(dtype)
    lens = None if kv_lens is None else torch.tensor(kv_lens)
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    keep = token_mask(everything, (70, 45), 70, 45, lens)
    out, lse = dense_attention_lse(q, k, v, scale=0.3, kv_lens=lens)
    assert out.dtype == dtype
    assert out.shape == q.shape
    check_attention(out, lse, exact_attention(q, k, v, keep, 0.3))


def test_float64_goes_through_the_reference(ran: list[str]) -> None:
    q, k, v = tensors(torch.float64)
    assert dense_kernel(q, k, v, 0.3, None) is None
    out, lse = dense_attention_lse(q, k, v)
    assert ran == ["reference"]
    assert (out.dtype, lse.dtype) == (torch.float64, torch.float32)
    right = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v))
    )
    assert torch.allclose(out, right.transpose(1, 2), atol=1e-12)


def test_nan_is_named() -> None:
    q, k, v = tensors(torch.float32)
    v[0, 3, 1, 2] = float("nan")
    with pytest.raises(SparseError, match="v holds 1 numbers that are not finite, of 6480"):
        dense_attention_lse(q, k, v)
