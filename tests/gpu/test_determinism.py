"""Equal calls give equal bits, forward, backward and in the block mass."""

from __future__ import annotations

import pytest
import torch
from gpu_call import GpuCall

from sparsediff.kernels import block_mass


@pytest.fixture
def call(device: torch.device, half: torch.dtype) -> GpuCall:
    tokens = 1501 if device.type == "cuda" else 301
    return GpuCall(device=device, dtype=half, dim=128, q_len=tokens, kv_len=tokens)


def repeats(device: torch.device) -> int:
    return 20 if device.type == "cuda" else 2


def test_forward(call: GpuCall) -> None:
    first = call.run()
    for _ in range(repeats(call.device)):
        for right, found in zip(first, call.run(), strict=True):
            assert torch.equal(right, found)


def test_backward(call: GpuCall) -> None:
    leaves = tuple(x.detach().requires_grad_() for x in call.tensors())
    grad_out = torch.randn(leaves[0].shape).to(call.dtype)
    grad_lse = torch.randn(call.batch, call.heads, call.q_len)
    first = call.gradients(leaves, grad_out, grad_lse)
    for _ in range(repeats(call.device)):
        for right, found in zip(first, call.gradients(leaves, grad_out, grad_lse), strict=True):
            assert torch.equal(right, found)


def test_mass(call: GpuCall) -> None:
    q, k, _ = call.tensors()
    lse = torch.zeros(call.batch, call.heads, call.q_len, device=call.device)
    found = [
        block_mass(q, k, lse, block_size=64, scale=0.01, backend="triton")
        for _ in range(repeats(call.device))
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])
