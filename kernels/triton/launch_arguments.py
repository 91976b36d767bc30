"""What the launches share: tiles, strides and sizes under the kernels' argument names."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.triton.tiles import Tile, padded_dim, tile_for

LOG2_E = math.log2(math.e)


def tile_of(kernel: str, q: Tensor, block_size: tuple[int, int], arch: int) -> Tile:
    """The tile of tiles.py for these queries."""
    return tile_for(kernel, arch=arch, dim=q.shape[3], dtype=q.dtype, block_size=block_size)


def tile_constants(tile: Tile, q: Tensor, block_size: tuple[int, int]) -> dict[str, Any]:
    """The constants that every kernel over lists has."""
    return {
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "Q_BLOCK": block_size[0],
        "BLOCK": block_size[1],
        "D": padded_dim(q.shape[3]),
        "DIM": q.shape[3],
    }


def has_tail(kv_len: int, block: int, kv_lens: Tensor | None) -> bool:
    """Whether the last key block of a row may be partial."""
    return kv_lens is not None or kv_len % block != 0


def strides(**tensors: Tensor) -> dict[str, int]:
    """Strides of ``[b, s, h, d]`` tensors under the kernels' argument names."""
    return {
        f"{name}_{dimension}": x.stride(axis)
        for name, x in tensors.items()
        for axis, dimension in enumerate(("batch", "token", "head"))
    }


def list_strides(counts: Tensor, indices: Tensor) -> dict[str, int]:
    """Strides of the lists under the kernels' argument names."""
    return {
        "count_batch": shared_stride(counts, 0),
        "count_head": shared_stride(counts, 1),
        "list_batch": shared_stride(indices, 0),
        "list_head": shared_stride(indices, 1),
        "list_row": indices.stride(2),
    }


def shared_stride(x: Tensor, axis: int) -> int:
    """0 where all batch items or heads share one entry."""
    return x.stride(axis) if x.shape[axis] > 1 else 0


def sizes(q: Tensor, k: Tensor) -> dict[str, int]:
    """Heads and lengths under the kernels' argument names."""
    return {"heads": q.shape[2], "q_len": q.shape[1], "kv_len": k.shape[1]}


def compute_capability(device: torch.device) -> int:
    """Ten times the compute capability; the newest the tiles know where no GPU computes."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor
