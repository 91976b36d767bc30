"""The gather backend keeps the order of rows with the mask, which spares a GPU the waiting."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask

from sparsediff.kernels import BlockMask, block_sparse_attention
from sparsediff.kernels.gather import RowOrder


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each order was made for."""
    made: list[int] = []
    of = RowOrder.of
    monkeypatch.setattr(RowOrder, "of", lambda lengths: made.append(len(lengths)) or of(lengths))
    return made


def example(batch: int, heads: int, *, grad: bool = False) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(batch * heads)
    shapes = [(batch, n, heads, 16) for n in (70, 90, 90)]
    return [torch.randn(shape, generator=noise).requires_grad_(grad) for shape in shapes]


def dense_map() -> torch.Tensor:
    return torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(3)) < 0.5


def mask_of(dense: torch.Tensor) -> BlockMask:
    return BlockMask.from_dense(dense, block_size=16, q_len=70, kv_len=90)


def test_once_per_mask_batch_and_heads(ordered: list[int]) -> None:
    dense = dense_map()
    mask = mask_of(dense)
    for batch, heads in ((1, 2), (2, 2), (2, 1), (1, 2), (2, 1)):
        q, k, v = example(batch, heads)
        out, lse = block_sparse_attention(q, k, v, mask, return_lse=True, backend="gather")
        keep = token_mask(dense, (16, 16), 70, 90)
        check_attention(out, lse, exact_attention(q, k, v, keep, 0.25))
    assert ordered == [10, 20, 10]


def test_padding_is_not_kept(ordered: list[int]) -> None:
    dense = dense_map()
    mask = mask_of(dense)
    q, k, v = example(2, 2)
    for lens in (torch.tensor([90, 33]), torch.tensor([40, 90]), None):
        out = block_sparse_attention(q, k, v, mask, backend="gather", kv_lens=lens)
        keep = token_mask(dense, (16, 16), 70, 90, lens)
        check_attention(out, None, exact_attention(q, k, v, keep, 0.25))
    assert ordered == [20, 20, 20]


def test_an_order_made_without_gradients_serves_gradients(ordered: list[int]) -> None:
    mask = mask_of(dense_map())
    with torch.inference_mode():
        block_sparse_attention(*example(1, 2), mask, backend="gather")
    q, k, v = example(1, 2, grad=True)
    block_sparse_attention(q, k, v, mask, backend="gather").sum().backward()
    assert ordered == [10]
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
