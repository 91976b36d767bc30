"""When the warp-specialised Hopper kernel may run, and its launch."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.launch_arguments import LOG2_E, list_strides
from sparsediff.kernels.triton.tiles import Tile

SWITCH = "SPARSEDIFF_HOPPER"
# padded head dim -> tile; four warps each for two groups of consumers and the producer's own.
TILES = {
    64: Tile(rows=128, columns=64, warps=4, stages=2),
    128: Tile(rows=128, columns=64, warps=4, stages=3),
}


def switched_on() -> bool:
    """Whether the user asks for the kernel, which no GPU has checked yet."""
    return os.environ.get(SWITCH, "0") == "1"


def hopper_reasons(
    q: Tensor, k: Tensor, v: Tensor, *, block_size: tuple[int, int], arch: int
) -> list[str]:
    """Why the kernel cannot take a call without padding and rules; empty when it can."""
    found = []
    if arch != 90:
        found.append(f"compute capability {arch // 10}.{arch % 10} (needs 9.0)")
    if q.shape[3] not in TILES or q.dtype not in {torch.bfloat16, torch.float16}:
        found.append(f"{q.dtype} of head dim {q.shape[3]} (needs 16 bits and 64 or 128)")
    if block_size[0] % 128 or block_size[1] % 64 or k.shape[1] % block_size[1]:
        found.append(f"{k.shape[1]} keys in blocks of {block_size} (needs whole ones of (128, 64))")
    for name, x in (("q", q), ("k", k), ("v", v)):
        merged = x.stride(0) == x.shape[1] * x.stride(1) or x.shape[0] == 1
        aligned = x.stride(1) % 8 == 0 and x.stride(2) % 8 == 0 and x.data_ptr() % 16 == 0
        if not (merged and aligned and x.stride(3) == 1 and x.stride(2) <= x.stride(1)):
            found.append(f"{name} with strides {x.stride()} (needs one matrix of tokens)")
    return found


def hopper_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    counts: Tensor,
    indices: Tensor,
    order: Tensor,
    block_size: tuple[int, int],
    scale: float,
) -> Launch:
    """The kernel on inputs without `hopper_reasons`; lists as `RowLists` holds them."""
    from sparsediff.kernels.triton.hopper import hopper_forward as kernel

    tile = TILES[q.shape[3]]
    q_blocks = block_count(q.shape[1], block_size[0])
    strides: dict[str, int] = {}
    for name, x in (("q", q), ("o", out)):
        steps = zip(("batch", "token", "head"), x.stride()[:3], strict=True)
        strides |= {f"{name}_{dimension}": step for dimension, step in steps}
    for name, x in (("k", k), ("v", v)):  # rows and columns of a matrix, not elements
        strides |= {f"{name}_batch": x.shape[1], f"{name}_head": x.stride(2)}
    return Launch(
        kernel=kernel,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (block_size[0] // tile.rows),),
        arguments={
            "Q": q,
            "K": _matrix(k, tile.columns),
            "V": _matrix(v, tile.columns),
            "OUT": out,
            "LSE": lse,
            "COUNTS": counts,
            "INDICES": indices,
            "ORDER": order,
            "scale_log2": scale * LOG2_E,
            **strides,
            **list_strides(counts, indices),
            "heads": q.shape[2],
            "q_len": q.shape[1],
            "q_blocks": q_blocks,
        },
        constants={
            "ROWS": tile.rows,
            "COLUMNS": tile.columns,
            "Q_BLOCK": block_size[0],
            "BLOCK": block_size[1],
            "D": q.shape[3],
        },
        warps=tile.warps,
        stages=tile.stages,
        scratch=True,
    )


def _matrix(x: Tensor, rows: int) -> object:
    """A descriptor of ``[b, s, h, d]`` as a matrix ``[b * s, columns]`` in tiles of `rows` x d."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    shape = [x.shape[0] * x.shape[1], (x.shape[2] - 1) * x.stride(2) + x.shape[3]]
    return TensorDescriptor(x, shape, [x.stride(1), 1], [rows, x.shape[3]])
