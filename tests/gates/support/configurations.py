"""Every launch the static gate compiles: kernel, GPU generation, head dim, dtype, blocks, variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton import backward_launches, hopper_launch, launches
from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.tiles import GENERATIONS, KERNELS, Tile

HEADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One launch: ``general`` takes every optional input (padding, rules, a partial last block)."""

    kernel: str
    arch: int
    dim: int
    dtype: torch.dtype
    block_size: tuple[int, int]
    general: bool
    tile: Tile | None = None

    def __str__(self) -> str:
        rows, columns = self.block_size
        name = str(self.dtype).removeprefix("torch.")
        variant = "general" if self.general else "plain"
        return f"{self.kernel}-sm{self.arch}-{name}-{self.dim}-{rows}x{columns}-{variant}"

    @property
    def tokens(self) -> int:
        """4096, or a length that leaves the last block partial."""
        return 4000 if self.general else 4096


def launch_of(case: Configuration) -> Launch:
    """The launch, by the builders that a call uses, from tensors without memory."""
    q, k, v, out = (_empty(2, case.tokens, HEADS, case.dim, dtype=case.dtype) for _ in range(4))
    lse = _empty(2, HEADS, case.tokens)
    lens = _empty(2, dtype=torch.int64) if case.general else None
    shared: dict[str, Any] = {"block_size": case.block_size, "scale": 0.1, "arch": case.arch}
    shared |= {"kv_lens": lens, "tile": case.tile}
    rows, columns = (block_count(case.tokens, size) for size in case.block_size)
    lists = {
        "counts": _empty(1, HEADS, rows, dtype=torch.int32),
        "indices": _empty(1, HEADS, rows, columns, dtype=torch.int32),
        "order": _empty(2 * HEADS * rows, dtype=torch.int32),
    }
    if case.kernel == "forward":
        rules = _empty(HEADS, 4, dtype=torch.int32) if case.general else None
        return launches.forward(
            q, k, v, out, lse, **lists, rules=rules, lead=3 * case.general, trail=2 * case.general,
            **shared,
        )  # fmt: skip
    if case.kernel == "mass":
        mass = _empty(2, HEADS, rows, columns)
        return launches.mass(q, k, lse, mass, **shared)
    if case.kernel == "pooled":
        blocks = _empty(2, columns, HEADS, case.dim, dtype=case.dtype)
        chosen = _empty(1, HEADS, rows, columns, dtype=torch.uint8)
        return launches.pooled(
            q, blocks, blocks, _empty(2, columns), chosen, out, lse, out, lse,
            q_block=case.block_size[0], scale=0.1, arch=case.arch, tile=case.tile,
        )  # fmt: skip
    if case.kernel == "hopper":
        return hopper_launch.hopper_forward(
            q, k, v, out, lse, **lists, block_size=case.block_size, scale=0.1
        )
    return _backward(case, q, lse, lists, shared)


def _backward(
    case: Configuration, q: Tensor, lse: Tensor, lists: dict[str, Tensor], shared: dict[str, Any]
) -> Launch:
    k = v = out = grad = q  # nothing is computed: only shapes, dtypes and strides count
    rows, columns = lists["indices"].shape[2:]
    if case.kernel == "delta":
        return backward_launches.delta(out, grad, lse if case.general else None, lse)
    if case.kernel == "dq":
        return backward_launches.grad_q(q, k, v, grad, lse, lse, out, **lists, **shared)
    return backward_launches.grad_kv(
        q, k, v, grad, lse, lse, k, v,
        counts=_empty(1, HEADS, columns, dtype=torch.int32),
        starts=_empty(1, HEADS, columns, dtype=torch.int64),
        rows=_empty(HEADS * rows * columns, dtype=torch.int32), **shared,
    )  # fmt: skip


def copies_per_turn(launch: Launch) -> int:
    """Bytes of inputs that one turn of the main loop reads from the tiles it walks over."""
    tokens, tensors = launch.constants["COLUMNS"], 2
    name = launch.kernel.__name__
    if name == "block_mass_kernel":
        tensors = 1
    if name == "grad_kv_kernel":
        tokens = launch.constants["ROWS"]
    element: int = launch.arguments["Q"].element_size()
    return int(tokens * tensors * launch.constants["D"] * element)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def every_case() -> list[Configuration]:
    """What the gate compiles: every tile of the table, and of the rest what differs from it.

    The general variant of a kernel holds its main loop as the plain one does, and needs more registers.
    float16 is compiled from the same text as bfloat16, generations of one kind of tensor core alike.
    """
    half, single = torch.bfloat16, torch.float32
    old_and_new = (80, 90)
    cases = [
        *_cases(KERNELS, GENERATIONS, (64, 128, 256), half, (128, 64)),
        *_cases(("forward", "pooled"), GENERATIONS, (64, 128), half, (64, 64)),
        *_cases(("forward", "dkdv"), (80, 90, 120), (96,), half, (128, 64)),
        *_cases(("forward", "mass", "dq", "dkdv"), old_and_new, (128,), half, (128, 128)),
        *_cases(("forward", "mass", "dq", "dkdv"), old_and_new, (32,), half, (128, 64)),
        *_cases(KERNELS, old_and_new, (64, 128), single, (128, 64)),
        *_cases(("forward", "dkdv"), (90,), (128,), torch.float16, (128, 64)),
        *_cases(("delta",), (80, 100), (128,), half, (128, 64)),
        *_cases(("forward",), GENERATIONS, (128,), half, (128, 64), general=False),
        *_cases(("mass", "dq", "dkdv"), old_and_new, (128,), half, (128, 64), general=False),
        *_cases(("hopper",), (90,), (64, 128), half, (128, 64), general=False),
    ]
    return cases


def sample() -> list[Configuration]:
    """A smaller set, for a second version of Triton: what most calls use, per kind of tensor core."""
    return [
        *_cases(
            ("forward", "mass", "dq", "dkdv"), (80, 90, 100), (64, 128), torch.bfloat16, (128, 64)
        ),
        *_cases(("forward", "mass"), (120,), (64, 128), torch.bfloat16, (128, 64)),
        *_cases(("forward",), (80, 90), (128,), torch.bfloat16, (64, 64)),
        *_cases(("forward",), (90,), (64,), torch.float32, (128, 64)),
        *_cases(("pooled",), (90,), (128,), torch.bfloat16, (128, 64)),
        *_cases(("hopper",), (90,), (64, 128), torch.bfloat16, (128, 64), general=False),
    ]


def _cases(
    kernels: Sequence[str],
    generations: Sequence[int],
    dims: Sequence[int],
    dtype: torch.dtype,
    block_size: tuple[int, int],
    *,
    general: bool = True,
) -> list[Configuration]:
    return [
        Configuration(
            kernel=kernel, arch=arch, dim=dim, dtype=dtype, block_size=block_size, general=general
        )
        for kernel in kernels
        for arch in generations
        for dim in dims
    ]
