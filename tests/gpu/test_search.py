"""AdaSpa's whole search and the first call with its pattern never make the host wait for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention, dense_attention_lse
from sparsediff.search import AdaSpa, TokenGrid

pytestmark = pytest.mark.cuda_only
GRIDS = (
    TokenGrid(frames=5, height=20, width=21),
    TokenGrid(frames=5, height=20, width=21, text_after=77),
    TokenGrid(frames=3, height=20, width=21, text_before=226),
)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Inside, whatever waits for the GPU raises."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def tensors(grid: TokenGrid, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (2, grid.tokens, 4, 64)
    return tuple(
        torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(3)
    )


def search(method: AdaSpa, q: Tensor, k: Tensor, lse: Tensor, grid: TokenGrid) -> BlockMask:
    mass = block_mass(q, k, lse, block_size=method.block_size, backend="triton")
    return method.mask(mass, grid)


def test_the_guard_bites(device: torch.device) -> None:
    x = torch.ones(3, device=device)
    with pytest.raises(RuntimeError), no_synchronisation():
        x.sum().item()


@pytest.mark.parametrize("head_budgets", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_no_synchronisation(device: torch.device, grid: TokenGrid, head_budgets: bool) -> None:
    q, k, v = tensors(grid, device)
    _, lse = dense_attention_lse(q, k, v)
    method = AdaSpa(head_budgets=head_budgets, recall_threshold=0.3)
    right = search(method, q, k, lse, grid)  # compiles, and fills caches that may wait
    block_sparse_attention(q, k, v, right, backend="triton")
    torch.cuda.synchronize()
    with no_synchronisation():
        mask = search(method, q, k, lse, grid)
        out = block_sparse_attention(q, k, v, mask, backend="triton")
    assert torch.equal(mask.to_dense(), right.to_dense())
    assert 0.15 < float(mask.density) < 1
    expected = block_sparse_attention(q, k, v, right, backend="triton")
    assert torch.equal(out, expected)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_training_step_with_a_fresh_pattern(device: torch.device, grid: TokenGrid) -> None:
    """The transposed lists of the backward pass are made without waiting, too."""
    leaves = tuple(x.requires_grad_() for x in tensors(grid, device))
    q, k, v = (x.detach() for x in leaves)
    _, lse = dense_attention_lse(q, k, v)
    method = AdaSpa()
    for guard in (nullcontext(), no_synchronisation()):  # the first compiles
        torch.cuda.synchronize()
        with guard:
            mask = search(method, q, k, lse, grid)
            out = block_sparse_attention(*leaves, mask, backend="triton")
            grads = torch.autograd.grad(out.float().sum(), leaves)
    assert all(bool(grad.isfinite().all()) for grad in grads)
