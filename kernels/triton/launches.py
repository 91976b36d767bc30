"""From tensors to launches: grids, strides and tiles of the kernels; no GPU is needed for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.tiles import Tile, padded_dim, power_of_two, tile_for

LOG2_E = math.log2(math.e)
DELTA_ROWS = 64
POOLED_COLUMNS = 64


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    counts: Tensor,
    indices: Tensor,
    order: Tensor | None,
    kv_lens: Tensor | None,
    rules: Tensor | None,
    lead: int,
    trail: int,
    block_size: tuple[int, int],
    scale: float,
    arch: int,
    tile: Tile | None = None,
) -> Launch:
    """The forward kernel on q ``[b, s, h, d]``, k and v ``[b, t, h, d]`` and lists as in `RowLists`."""
    from sparsediff.kernels.triton.forward import block_sparse_forward

    tile = tile or _tile("forward", q, block_size, arch)
    q_blocks = block_count(q.shape[1], block_size[0])
    return Launch(
        kernel=block_sparse_forward,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (block_size[0] // tile.rows),),
        arguments={
            "Q": q, "K": k, "V": v, "OUT": out, "LSE": lse,
            "COUNTS": counts, "INDICES": indices, "ORDER": order, "LENS": kv_lens, "RULES": rules,
            "scale_log2": scale * LOG2_E,
            **_strides(q=q, k=k, v=v, o=out), **list_strides(counts, indices),
            **_sizes(q, k), "q_blocks": q_blocks,
            "kv_blocks": block_count(k.shape[1], block_size[1]), "lead": lead, "trail": trail,
        },
        constants={
            **_tile_constants(tile, q, block_size),
            "ORDERED": order is not None, "PADDED": kv_lens is not None,
            "TAIL": _has_tail(k.shape[1], block_size[1], kv_lens), "RULED": rules is not None,
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip


def mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    out: Tensor,
    *,
    kv_lens: Tensor | None,
    block_size: tuple[int, int],
    scale: float,
    arch: int,
    tile: Tile | None = None,
) -> Launch:
    """The block mass kernel; ``out`` float32 ``[b, h, m * parts, n]``, parts of `mass_part` queries."""
    from sparsediff.kernels.triton.mass import block_mass_kernel

    columns = block_size[1]
    tile = tile or mass_tile(q, block_size, arch)
    q_part = mass_part(tile, block_size[0])
    # Small blocks share a program, because tensor cores want 64 rows and more.
    height = tile.rows if q_part == block_size[0] else q_part
    out_rows = out.shape[2]
    programs = block_count(out_rows, height // q_part)
    return Launch(
        kernel=block_mass_kernel,
        grid=(q.shape[0] * q.shape[2] * programs,),
        arguments={
            "Q": q, "K": k, "LSE": lse, "OUT": out, "LENS": kv_lens, "scale_log2": scale * LOG2_E,
            **_strides(q=q, k=k),
            "lse_batch": lse.stride(0), "lse_head": lse.stride(1), "lse_token": lse.stride(2),
            **_sizes(q, k), "programs": programs, "out_rows": out_rows,
            "kv_blocks": block_count(k.shape[1], columns),
        },
        constants={
            "ROWS": height, "COLUMNS": tile.columns, "Q_PART": q_part, "BLOCK": columns,
            "D": padded_dim(q.shape[3]), "DIM": q.shape[3], "PADDED": kv_lens is not None,
            "TAIL": _has_tail(k.shape[1], columns, kv_lens),
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip


def pooled(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    log_count: Tensor,
    chosen: Tensor,
    part: Tensor,
    part_lse: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    q_block: int,
    scale: float,
    arch: int,
    tile: Tile | None = None,
) -> Launch:
    """The pooled kernel on pooled blocks ``[b, n, h, d]`` and the forward kernel's `part`."""
    from sparsediff.kernels.triton.pooled import pooled_kernel

    tile = tile or _tile("pooled", q, (q_block, POOLED_COLUMNS), arch)
    q_blocks = block_count(q.shape[1], q_block)
    return Launch(
        kernel=pooled_kernel,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (q_block // tile.rows),),
        arguments={
            "Q": q, "POOLED_K": keys, "POOLED_V": values, "LOG_COUNT": log_count,
            "CHOSEN": chosen, "PART": part, "PART_LSE": part_lse, "OUT": out, "LSE": lse,
            "scale_log2": scale * LOG2_E, **_strides(q=q, k=keys, v=values, p=part, o=out),
            "chosen_batch": _shared_stride(chosen, 0), "chosen_head": _shared_stride(chosen, 1),
            "heads": q.shape[2], "q_len": q.shape[1], "q_blocks": q_blocks,
            "kv_blocks": keys.shape[1],
        },
        constants={
            "ROWS": tile.rows, "COLUMNS": tile.columns, "Q_BLOCK": q_block,
            "D": padded_dim(q.shape[3]), "DIM": q.shape[3],
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip


def delta(out: Tensor, grad_out: Tensor, grad_lse: Tensor | None, into: Tensor) -> Launch:
    """Rows' sums of out * grad_out, less grad_lse: float32 ``[b, h, s]``, contiguous."""
    from sparsediff.kernels.triton.backward import delta_kernel

    row_blocks = block_count(out.shape[1], DELTA_ROWS)
    return Launch(
        kernel=delta_kernel,
        grid=(out.shape[0] * out.shape[2] * row_blocks,),
        arguments={
            "OUT": out, "GRAD_OUT": grad_out, "GRAD_LSE": grad_lse, "DELTA": into,
            **_strides(o=out, do=grad_out),
            "heads": out.shape[2], "q_len": out.shape[1], "row_blocks": row_blocks,
        },
        constants={
            "ROWS": DELTA_ROWS, "D": padded_dim(out.shape[3]), "DIM": out.shape[3],
            "WITH_LSE": grad_lse is not None,
        },
        warps=4,
        stages=1,
    )  # fmt: skip


def grad_q(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad_out: Tensor,
    lse: Tensor,
    row_delta: Tensor,
    into: Tensor,
    *,
    counts: Tensor,
    indices: Tensor,
    order: Tensor | None,
    kv_lens: Tensor | None,
    block_size: tuple[int, int],
    scale: float,
    arch: int,
    tile: Tile | None = None,
) -> Launch:
    """dq over the lists of the forward pass."""
    from sparsediff.kernels.triton.backward import grad_q_kernel

    tile = tile or _tile("dq", q, block_size, arch)
    q_blocks = block_count(q.shape[1], block_size[0])
    return Launch(
        kernel=grad_q_kernel,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (block_size[0] // tile.rows),),
        arguments={
            "Q": q, "K": k, "V": v, "GRAD_OUT": grad_out, "GRAD_Q": into, "LSE": lse,
            "DELTA": row_delta, "COUNTS": counts, "INDICES": indices, "ORDER": order,
            "LENS": kv_lens, "scale_log2": scale * LOG2_E, "scale": scale,
            **_strides(q=q, k=k, v=v, do=grad_out, dq=into), **list_strides(counts, indices),
            **_sizes(q, k), "q_blocks": q_blocks,
        },
        constants={
            **_tile_constants(tile, q, block_size),
            "ORDERED": order is not None, "PADDED": kv_lens is not None,
            "TAIL": _has_tail(k.shape[1], block_size[1], kv_lens),
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip


def grad_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad_out: Tensor,
    lse: Tensor,
    row_delta: Tensor,
    into_k: Tensor,
    into_v: Tensor,
    *,
    counts: Tensor,
    starts: Tensor,
    rows: Tensor,
    kv_lens: Tensor | None,
    block_size: tuple[int, int],
    scale: float,
    arch: int,
    tile: Tile | None = None,
) -> Launch:
    """dk and dv over the lists of `TransposedLists`."""
    from sparsediff.kernels.triton.backward import grad_kv_kernel

    tile = tile or _tile("dkdv", q, block_size, arch)
    kv_blocks = block_count(k.shape[1], block_size[1])
    constants = _tile_constants(tile, q, block_size)
    return Launch(
        kernel=grad_kv_kernel,
        grid=(q.shape[0] * q.shape[2] * kv_blocks * (block_size[1] // tile.columns),),
        arguments={
            "Q": q, "K": k, "V": v, "GRAD_OUT": grad_out, "GRAD_K": into_k, "GRAD_V": into_v,
            "LSE": lse, "DELTA": row_delta, "COUNTS": counts, "STARTS": starts, "ROW_LIST": rows,
            "LENS": kv_lens, "scale_log2": scale * LOG2_E, "scale": scale,
            **_strides(q=q, k=k, v=v, do=grad_out, dk=into_k, dv=into_v),
            "list_batch": _shared_stride(counts, 0), "list_head": _shared_stride(counts, 1),
            **_sizes(q, k), "kv_blocks": kv_blocks,
        },
        constants={
            **constants, "PADDED": kv_lens is not None,
            "TAIL": q.shape[1] % block_size[0] != 0,
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip


def mass_tile(q: Tensor, block_size: tuple[int, int], arch: int) -> Tile:
    """The block mass kernel's tile; its rows may cover several query blocks."""
    return _tile("mass", q, (1 << 10, block_size[1]), arch)


def mass_part(tile: Tile, rows: int) -> int:
    """How many queries of a block of `rows` the block mass kernel sums up; the block if it fits."""
    return min(tile.rows, power_of_two(rows))


def _tile(kernel: str, q: Tensor, block_size: tuple[int, int], arch: int) -> Tile:
    return tile_for(kernel, arch=arch, dim=q.shape[3], dtype=q.dtype, block_size=block_size)


def _tile_constants(tile: Tile, q: Tensor, block_size: tuple[int, int]) -> dict[str, Any]:
    return {
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "Q_BLOCK": block_size[0],
        "BLOCK": block_size[1],
        "D": padded_dim(q.shape[3]),
        "DIM": q.shape[3],
    }


def _has_tail(kv_len: int, block: int, kv_lens: Tensor | None) -> bool:
    return kv_lens is not None or kv_len % block != 0


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Strides of ``[b, s, h, d]`` tensors under the kernels' argument names."""
    return {
        f"{name}_{dimension}": x.stride(axis)
        for name, x in tensors.items()
        for axis, dimension in enumerate(("batch", "token", "head"))
    }


def list_strides(counts: Tensor, indices: Tensor) -> dict[str, int]:
    """Strides of the lists under the kernels' argument names."""
    return {
        "count_batch": _shared_stride(counts, 0),
        "count_head": _shared_stride(counts, 1),
        "list_batch": _shared_stride(indices, 0),
        "list_head": _shared_stride(indices, 1),
        "list_row": indices.stride(2),
    }


def _shared_stride(x: Tensor, axis: int) -> int:
    """0 where all batch items or heads share one entry."""
    return x.stride(axis) if x.shape[axis] > 1 else 0


def _sizes(q: Tensor, k: Tensor) -> dict[str, int]:
    return {"heads": q.shape[2], "q_len": q.shape[1], "kv_len": k.shape[1]}


def compute_capability(device: torch.device) -> int:
    """Ten times the compute capability; the newest the tiles know where no GPU computes."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor
