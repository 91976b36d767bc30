"""torch.compile(fullgraph=True): the operator is one opaque node, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_call import SCALE, GpuCall
from torch import Tensor

from sparsediff.kernels import block_sparse_attention

operators = pytest.importorskip("sparsediff.kernels.triton.operators")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.cuda_only
@pytest.mark.parametrize("padded", [False, True])
def test_forward_and_backward(device: torch.device, padded: bool) -> None:
    call = GpuCall(device=device, kv_lens=(100, 333) if padded else None)
    mask, lens = call.mask(), call.lens()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = block_sparse_attention(
            q * 1.5, k, v, mask, scale=SCALE, kv_lens=lens, backend="triton"
        )
        return out * 2

    results = []
    for run in (attend, torch.compile(attend, fullgraph=True)):
        leaves = tuple(x.detach().requires_grad_() for x in call.tensors())
        out = run(*leaves)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), leaves)))
    for right, found in zip(*results, strict=True):
        error = (right.float() - found.float()).norm() / right.float().norm()
        assert float(error) < 2**-6  # inductor may keep q * 1.5 in float32


def test_operator_is_registered_right(
    device: torch.device, half: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own checks of schema, fake tensors, autograd and AOT dispatch, on a real call."""
    operator = operators.block_sparse_attention
    calls: list[tuple[Any, ...]] = []

    def recorded(*arguments: Any) -> Any:
        calls.append(arguments)
        return operator(*arguments)

    monkeypatch.setattr(operators, "block_sparse_attention", recorded)
    call = GpuCall(device=device, dtype=half, heads=1, q_len=70, kv_len=70, block=(64, 64))
    q, k, v = (x.detach().contiguous().requires_grad_() for x in call.tensors())
    block_sparse_attention(q, k, v, call.mask(), scale=SCALE, backend="triton")
    assert len(calls) == 1
    torch.library.opcheck(operator, calls[0])
