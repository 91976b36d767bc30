"""The lists that the Triton kernels read, and the views that they are handed: no Triton needed."""

from __future__ import annotations

import pytest
import torch

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.triton import backend
from sparsediff.kernels.triton.row_lists import stored_lists, transposed_lists


def random_mask(*, full_rows: bool) -> BlockMask:
    dense = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    dense[0, 1] = False
    dense[:, :, :, 4] = False
    if full_rows:
        dense[:, :, 2] = True
    return BlockMask.from_dense(dense, block_size=(16, 32), q_len=80, kv_len=200)


@pytest.mark.parametrize("full_rows", [False, True])
def test_transposed_lists_name_every_pair_once_in_order(full_rows: bool) -> None:
    mask = random_mask(full_rows=full_rows)
    dense, lists = mask.to_dense(), transposed_lists(mask)
    for batch in range(2):
        for head in range(3):
            for column in range(7):
                start = int(lists.starts[batch, head, column])
                count = int(lists.counts[batch, head, column])
                right = dense[batch, head, :, column].nonzero().flatten().tolist()
                assert lists.rows[start : start + count].tolist() == right


def test_transposed_lists_of_implied_rows() -> None:
    stored = torch.tensor([3, 0, 1], dtype=torch.int32)
    mask = BlockMask.from_lists(
        torch.tensor([[3, 9], [9, 9], [0, 9]])[None, None],
        torch.where(stored == 3, 4, stored)[None, None],
        block_size=16,
        q_len=48,
        kv_len=64,
        implied_full=True,
    )
    lists = transposed_lists(mask)
    assert lists.counts.flatten().tolist() == [2, 1, 1, 1]
    found = [
        lists.rows[start : start + count].tolist()
        for start, count in zip(lists.starts.flatten(), lists.counts.flatten(), strict=True)
    ]
    assert found == [[0, 2], [0], [0], [0]]


def test_transposed_lists_of_nothing() -> None:
    mask = BlockMask.from_indices(
        torch.zeros(1, 2, 3, 0, dtype=torch.int64), block_size=16, q_len=48, kv_len=64
    )
    lists = transposed_lists(mask)
    assert lists.counts.tolist() == [[[0] * 4] * 2]
    assert lists.rows.numel() == 0


def test_chosen_blocks_are_kept_only_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = random_mask(full_rows=True)
    monkeypatch.setattr(backend, "MAX_KEPT_BYTES", mask.to_dense().numel() - 1)
    large = backend._chosen_blocks(mask)
    assert not mask._forms
    monkeypatch.undo()
    small = backend._chosen_blocks(mask)
    assert backend._chosen_blocks(mask) is small
    assert torch.equal(large, small)
    assert torch.equal(small, mask.to_dense().to(torch.uint8))


def test_views_whose_tiles_leave_32_bits_are_copied() -> None:
    x = torch.empty(1, 2, 1, 8)
    far, most = backend.MAX_TOKEN_STRIDE + 1, backend.MAX_TOKEN_STRIDE
    assert most * 127 + 255 < 2**31 <= far * 127 + 256
    meta = torch.empty(1, device="meta")
    kept = meta.as_strided((1, 2, 1, 8), (0, most, 8, 1))
    assert backend.dim_contiguous(kept) is kept
    assert backend.dim_contiguous(x) is x
    copied = backend.dim_contiguous(meta.as_strided((1, 2, 1, 8), (0, far, 8, 1)))
    assert copied.is_contiguous()


def test_lists_of_a_transposed_tensor_are_copied_once() -> None:
    numbers = torch.tensor([[0, 2], [1, 3], [0, 1]])[None, None]
    apart = numbers.transpose(2, 3).contiguous().transpose(2, 3)
    sizes = {"block_size": 16, "q_len": 48, "kv_len": 64}
    mask = BlockMask.from_indices(apart, **sizes)
    assert mask.indices.stride(3) != 1, "sort no longer keeps strides"
    lists = stored_lists(mask)
    assert lists.stride(3) == 1
    assert torch.equal(lists, mask.indices)
    assert stored_lists(mask) is lists
    plain = BlockMask.from_indices(numbers, **sizes)
    assert stored_lists(plain) is plain.indices
