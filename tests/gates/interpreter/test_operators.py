"""The kernels as torch operators: schemas, compiled graphs, and the same bits at every call."""

from __future__ import annotations

from typing import Any

import torch
from attention_oracle import check_attention, exact_attention
from calls import SCALE, Call, random_mask
from torch import Tensor

from sparsediff.kernels import block_mass, block_sparse_attention
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.triton import operators
from sparsediff.kernels.triton.row_lists import row_lists, transposed_lists

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor")


def arguments(mask: BlockMask, q: Tensor, k: Tensor, v: Tensor) -> tuple[Any, ...]:
    """What the backend hands the operator for a mask without rules."""
    lists = row_lists(mask, batch=1, heads=2, head_bytes=1, kv_lens=None)
    columns = transposed_lists(mask)
    return (
        q, k, v, lists.counts, lists.indices, lists.order, None, None, 0, 0,
        columns.counts, columns.starts, columns.rows, *mask.block_size, SCALE,
    )  # fmt: skip


def test_operators_keep_their_schemas() -> None:
    call = Call(mask=random_mask(40, 56, (32, 32)), dim=16)
    q, k, v = (x.clone().requires_grad_() for x in call.inputs())
    given = arguments(call.mask, q, k, v)
    torch.library.opcheck(operators.block_sparse_attention, given, test_utils=TESTS)
    lse = torch.zeros(1, 2, 40)
    inputs = (q.detach(), k.detach(), lse, None, 32, 32, SCALE)
    torch.library.opcheck(operators.block_mass, inputs, test_utils=TESTS)


def test_compiled_whole_forward_and_backward() -> None:
    call = Call(mask=random_mask(40, 56, (32, 32)), dim=16)
    leaves = [x.clone().requires_grad_() for x in call.inputs()]
    given = arguments(call.mask, *leaves)[3:]

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, lse = operators.block_sparse_attention(q * 2, k, v, *given)
        return out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*leaves), leaves)
    expected = torch.autograd.grad(step(*leaves), leaves)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


def test_equal_calls_give_equal_bits() -> None:
    call = Call(mask=random_mask(75, 90, (32, 32), density=0.8), dim=16)
    leaves = [x.clone().requires_grad_() for x in call.inputs()]
    runs = []
    for _ in range(2):
        out, lse = call.run(*leaves)
        grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
        mass = block_mass(
            leaves[0].detach(), leaves[1].detach(), lse.detach(), block_size=32, backend="triton"
        )
        runs.append([out, lse, *grads, mass])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_the_public_entry_reaches_the_kernels() -> None:
    call = Call(mask=random_mask(40, 56, (32, 32)), dim=16)
    q, k, v = call.inputs()
    calls: list[str] = []
    original = operators.launches.forward

    def counted(*given: Any, **named: Any) -> Any:
        calls.append("forward")
        return original(*given, **named)

    operators.launches.forward = counted
    try:
        out, lse = block_sparse_attention(
            q, k, v, call.mask, scale=SCALE, backend="triton", return_lse=True
        )
    finally:
        operators.launches.forward = original
    assert calls == ["forward"]
    check_attention(out, lse, exact_attention(q, k, v, call.keep(), SCALE))
