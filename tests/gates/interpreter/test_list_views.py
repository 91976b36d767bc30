"""Lists and lengths that are views: what the kernels read as one piece of memory may have strides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention

LISTS = torch.tensor([[0, 2], [1, 3], [2, 3], [0, 1], [0, 3], [1, 2], [0, 1], [2, 3]])
LENGTHS = {
    "slice": torch.tensor([70, 3, 90, 5])[::2],
    "expanded": torch.tensor([70]).expand(2),
}


def inputs() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 128, 2, 16, generator=generator) for _ in range(3))


def check(indices: Tensor, kv_lens: Tensor | None) -> None:
    mask = BlockMask.from_indices(indices, block_size=(16, 32), q_len=128, kv_len=128)
    found, right = (
        block_sparse_attention(*inputs(), mask, kv_lens=kv_lens, backend=backend)
        for backend in ("triton", "reference")
    )
    assert torch.allclose(found, right, atol=1e-5)


def test_transposed_lists() -> None:
    apart = LISTS.T.contiguous().T
    assert apart.stride(1) != 1
    check(apart[None, None], None)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_lengths(lengths: Tensor) -> None:
    assert lengths.stride(0) != 1
    check(LISTS[None, None], lengths)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_lengths_of_the_block_mass(lengths: Tensor) -> None:
    q, k, _ = inputs()
    lse = torch.full((2, 2, 128), 5.0)
    found, right = (
        block_mass(q, k, lse, block_size=(16, 32), kv_lens=lengths, backend=backend)
        for backend in ("triton", "reference")
    )
    assert torch.allclose(found, right, rtol=1e-4)
