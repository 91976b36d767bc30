"""Offsets beyond 2^31 elements: tensors whose rows lie gigabytes apart in memory nobody touches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attention_oracle import exact_attention
from exact_gradients import gradient_budgets
from far_memory import (
    BASE,
    BLOCK,
    SCALE,
    SHAPE,
    STRIDES,
    check_forward,
    mask_of_all,
    numbers,
    spread,
)
from torch import Tensor

from sparsediff.kernels.triton import backward_launches, launches
from sparsediff.kernels.triton.row_lists import row_lists, transposed_lists


@pytest.mark.parametrize("which", STRIDES)
@pytest.mark.parametrize("place", ["q", "k", "v", "out"])
def test_forward(memory: Tensor, place: str, which: str) -> None:
    tensors = {name: numbers(i) for i, name in enumerate(("q", "k", "v"))}
    tensors["out"] = torch.full(SHAPE, torch.nan, dtype=torch.float16)
    tensors[place] = spread(memory, tensors[place], which)
    check_forward(**tensors)


# The kernel of the rows' sums takes 64 tokens at once; see `test_sums_of_far_tokens`.
@pytest.mark.parametrize(
    ("place", "which"),
    [
        (place, which)
        for place in ("q", "k", "v", "grad_out", "into")
        for which in STRIDES
        if (place, which) != ("grad_out", "tokens")
    ],
)
def test_backward(memory: Tensor, place: str, which: str) -> None:
    tensors = {name: numbers(i) for i, name in enumerate(("q", "k", "v", "grad_out"))}
    if place != "into":
        tensors[place] = spread(memory, tensors[place], which)
    blank = torch.full(SHAPE, torch.nan, dtype=torch.float16)
    check_backward(
        tensors, lambda: spread(memory, blank, which) if place == "into" else blank.clone()
    )


def check_backward(tensors: dict[str, Tensor], new: Callable[[], Tensor]) -> None:
    """Run the backward kernels; `new` makes the memory of each gradient, which is used one by one."""
    q, k, v, grad_out = tensors.values()
    out, mask = numbers(9), mask_of_all()
    lse = check_forward(q, k, v, out)
    delta = torch.full_like(lse, torch.nan)
    backward_launches.delta(out, grad_out, None, delta).run()
    keep = torch.ones(SHAPE[0], SHAPE[2], SHAPE[1], SHAPE[1], dtype=torch.bool)
    exact = exact_attention(q, k, v, keep, SCALE)
    budgets = gradient_budgets(q, k, v, exact, grad_out=grad_out, grad_lse=None, scale=SCALE)
    rows = row_lists(mask, batch=SHAPE[0], heads=SHAPE[2], head_bytes=1, kv_lens=None)
    columns = transposed_lists(mask)
    fixed = {"kv_lens": None, "block_size": BLOCK, "scale": SCALE, "arch": 90}
    into = new()
    backward_launches.grad_q(
        q, k, v, grad_out, lse, delta, into,
        counts=rows.counts, indices=rows.indices, order=rows.order, **fixed,
    ).run()  # fmt: skip
    budgets["dq"].check("dq", into)
    for name in ("dk", "dv"):
        into, other = new(), torch.empty(SHAPE, dtype=torch.float16)
        backward_launches.grad_kv(
            q, k, v, grad_out, lse, delta, *((into, other) if name == "dk" else (other, into)),
            counts=columns.counts, starts=columns.starts, rows=columns.rows, **fixed,
        ).run()  # fmt: skip
        budgets[name].check(name, into)


@pytest.mark.parametrize(
    ("place", "which"),
    [("q", "batch"), ("q", "heads"), ("k", "batch"), ("k", "tokens"), ("k", "heads")],
)
def test_mass(memory: Tensor, place: str, which: str) -> None:
    tensors = {name: numbers(i) for i, name in enumerate(("q", "k"))}
    near = mass(**tensors)
    tensors[place] = spread(memory, tensors[place], which)
    assert torch.equal(mass(**tensors), near)


def test_mass_of_far_query_tokens(memory: Tensor) -> None:
    q, k = numbers(0)[:1, :1].expand(1, 160, 2, 16), numbers(1)[:1]
    far = memory.as_strided(q.shape, (0, (1 << 24) + 64, 16, 1), BASE)
    far.copy_(q)
    assert torch.equal(mass(far, k), mass(q, k))


def mass(q: Tensor, k: Tensor) -> Tensor:
    out = torch.full((q.shape[0], 2, q.shape[1] // 16, 2), torch.nan)
    lse = torch.zeros(q.shape[0], 2, q.shape[1])
    launches.mass(q, k, lse, out, kv_lens=None, block_size=BLOCK, scale=SCALE, arch=90).run()
    assert out.isfinite().all()
    return out


def test_lists(memory: Tensor) -> None:
    lists = row_lists(mask_of_all(), batch=2, heads=2, head_bytes=1, kv_lens=None)
    near = mask_of_all().complete().indices.expand(1, 2, 2, 2)
    whole = memory.view(torch.int32)
    far = whole.as_strided((1, 2, 2, 2), (0, 1 << 30, (1 << 30) + 8, 1), 1 << 29)
    far.copy_(near)
    q, k, v = (numbers(i) for i in range(3))
    found = []
    for indices in (near, far):
        out, lse = torch.full_like(q, torch.nan), torch.full((2, 2, SHAPE[1]), torch.nan)
        launches.forward(
            q, k, v, out, lse, counts=lists.counts.abs().expand(1, 2, 2).contiguous(),
            indices=indices, order=lists.order, kv_lens=None, rules=None, lead=0, trail=0,
            block_size=BLOCK, scale=SCALE, arch=90,
        ).run()  # fmt: skip
        found.append(out)
    assert torch.equal(*found)
    assert found[0].isfinite().all()
