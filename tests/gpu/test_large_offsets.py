"""Offsets beyond 2^31 elements: views spread over a huge buffer, and an output of more than that."""

from __future__ import annotations

import pytest
import torch
from gpu_call import SCALE, GpuCall
from torch import Tensor

from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention

pytestmark = pytest.mark.cuda_only
ELEMENTS = 2**31 + 2**27  # 4.6 GB of bfloat16
FREE_BYTES = 20 << 30


@pytest.fixture(autouse=True)
def _room(device: torch.device) -> None:
    if torch.cuda.mem_get_info(device)[0] < FREE_BYTES:
        pytest.skip("needs 20 GB of free GPU memory")


def far_strides(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Strides of a ``[b, s, h, d]`` view that reaches over ELEMENTS along one axis.

    An item is 3 * d wide, so that q, k and v fit side by side.
    """
    inner, outer = (i for i in (2, 1, 0) if i != axis)
    strides = [0, 0, 0, 1]
    strides[inner] = 3 * shape[3]
    strides[outer] = strides[inner] * shape[inner]
    dense = strides[outer] * shape[outer]
    strides[axis] = (ELEMENTS - dense) // (shape[axis] - 1) // 8 * 8
    assert strides[axis] >= dense, "items would overlap"
    assert strides[axis] * (shape[axis] - 1) > 2**31
    return tuple(strides)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["batch", "tokens", "heads"])
def test_views_with_huge_strides(device: torch.device, axis: int) -> None:
    call = GpuCall(device=device, q_len=200, kv_len=200)
    shape = (call.batch, call.q_len, call.heads, call.dim)
    strides = far_strides(shape, axis)
    buffer = torch.full((ELEMENTS,), torch.nan, dtype=call.dtype, device=device)
    views = tuple(
        buffer.as_strided(shape, strides, storage_offset=part * call.dim) for part in range(3)
    )
    compact = tuple(x.contiguous() for x in call.tensors())
    for view, numbers in zip(views, compact, strict=True):
        view.copy_(numbers)
    right, found = call.run(*compact), call.run(*views)
    assert torch.equal(right[0], found[0])
    assert torch.equal(right[1], found[1])
    grads = (torch.randn(shape), torch.randn(call.batch, call.heads, call.q_len))
    for a, b in zip(
        call.gradients(_leaves(compact), *grads),
        call.gradients(_leaves(views), *grads),
        strict=True,
    ):
        assert torch.equal(a, b)
    masses = [
        block_mass(x[0], x[1], right[1], block_size=64, scale=SCALE, backend="triton")
        for x in (compact, views)
    ]
    assert torch.equal(*masses)


def _leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach().requires_grad_() for x in tensors)


def test_output_of_more_elements(device: torch.device) -> None:
    """Inputs shared by all batch items, so that only the output is huge; few blocks a row."""
    batch, tokens, heads, dim = 9, 61_000, 32, 128
    assert batch * tokens * heads * dim > 2**31
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(1, tokens, heads, dim, generator=generator, device=device).bfloat16()
        for _ in range(3)
    )
    rows = -(-tokens // 128)
    chosen = 2 * torch.arange(rows, dtype=torch.int32, device=device)[:, None]
    mask = BlockMask.from_indices(
        chosen.expand(1, 1, rows, 1), block_size=(128, 64), q_len=tokens, kv_len=tokens
    )
    right = block_sparse_attention(q, k, v, mask, return_lse=True, backend="triton")
    many = (x.expand(batch, -1, -1, -1) for x in (q, k, v))
    out, lse = block_sparse_attention(*many, mask, return_lse=True, backend="triton")
    for item in (0, batch - 1):
        assert torch.equal(out[item], right[0][0])
        assert torch.equal(lse[item], right[1][0])
