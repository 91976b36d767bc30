"""Every launch the static gate compiles: kernel, GPU generation, head dim, dtype, blocks, variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton import launches
from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.tiles import Tile

BLOCKS = ((128, 64), (64, 64), (128, 128))
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
    q, k, v, out, grad = (
        _empty(2, case.tokens, HEADS, case.dim, dtype=case.dtype) for _ in range(5)
    )
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
            q, k, v, out, lse, **lists, rules=rules, lead=int(case.general), trail=0, **shared
        )
    if case.kernel == "mass":
        mass = _empty(2, HEADS, rows, columns)
        return launches.mass(q, k, lse, mass, **shared)
    if case.kernel == "delta":
        return launches.delta(out, grad, lse if case.general else None, lse)
    if case.kernel == "dq":
        return launches.grad_q(q, k, v, grad, lse, lse, out, **lists, **shared)
    return launches.grad_kv(
        q, k, v, grad, lse, lse, k, v,
        counts=_empty(1, HEADS, columns, dtype=torch.int32),
        starts=_empty(1, HEADS, columns, dtype=torch.int64),
        rows=_empty(HEADS * rows * columns, dtype=torch.int32), **shared,
    )  # fmt: skip


def copies_per_turn(launch: Launch) -> int:
    """Bytes of inputs that one turn of the main loop reads from the tiles it walks over."""
    tokens = launch.constants["COLUMNS"]
    tensors = 2
    name = launch.kernel.__name__
    if name == "block_mass_kernel":
        tensors = 1
    if name == "grad_kv_kernel":
        tokens = launch.constants["ROWS"]
    element: int = launch.arguments["Q"].element_size()
    return int(tokens * tensors * launch.constants["D"] * element)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
