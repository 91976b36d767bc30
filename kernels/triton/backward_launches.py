"""From tensors to the launches of the backward kernels; no GPU is needed for them."""

from __future__ import annotations

from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.launch_arguments import (
    LOG2_E,
    has_tail,
    list_strides,
    shared_stride,
    sizes,
    strides,
    tile_constants,
    tile_of,
)
from sparsediff.kernels.triton.tiles import Tile, padded_dim

DELTA_ROWS = 64


def delta(out: Tensor, grad_out: Tensor, grad_lse: Tensor | None, into: Tensor) -> Launch:
    """Rows' sums of out * grad_out, less grad_lse: float32 ``[b, h, s]``, contiguous."""
    from sparsediff.kernels.triton.backward import delta_kernel

    row_blocks = block_count(out.shape[1], DELTA_ROWS)
    return Launch(
        kernel=delta_kernel,
        grid=(out.shape[0] * out.shape[2] * row_blocks,),
        arguments={
            "OUT": out, "GRAD_OUT": grad_out, "GRAD_LSE": grad_lse, "DELTA": into,
            **strides(o=out, do=grad_out),
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

    tile = tile or tile_of("dq", q, block_size, arch)
    q_blocks = block_count(q.shape[1], block_size[0])
    return Launch(
        kernel=grad_q_kernel,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (block_size[0] // tile.rows),),
        arguments={
            "Q": q, "K": k, "V": v, "GRAD_OUT": grad_out, "GRAD_Q": into, "LSE": lse,
            "DELTA": row_delta, "COUNTS": counts, "INDICES": indices, "ORDER": order,
            "LENS": kv_lens, "scale_log2": scale * LOG2_E, "scale": scale,
            **strides(q=q, k=k, v=v, do=grad_out, dq=into), **list_strides(counts, indices),
            **sizes(q, k), "q_blocks": q_blocks,
        },
        constants={
            **tile_constants(tile, q, block_size),
            "ORDERED": order is not None, "PADDED": kv_lens is not None,
            "TAIL": has_tail(k.shape[1], block_size[1], kv_lens),
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

    tile = tile or tile_of("dkdv", q, block_size, arch)
    kv_blocks = block_count(k.shape[1], block_size[1])
    constants = tile_constants(tile, q, block_size)
    return Launch(
        kernel=grad_kv_kernel,
        grid=(q.shape[0] * q.shape[2] * kv_blocks * (block_size[1] // tile.columns),),
        arguments={
            "Q": q, "K": k, "V": v, "GRAD_OUT": grad_out, "GRAD_K": into_k, "GRAD_V": into_v,
            "LSE": lse, "DELTA": row_delta, "COUNTS": counts, "STARTS": starts, "ROW_LIST": rows,
            "LENS": kv_lens, "scale_log2": scale * LOG2_E, "scale": scale,
            **strides(q=q, k=k, v=v, do=grad_out, dk=into_k, dv=into_v),
            "list_batch": shared_stride(counts, 0), "list_head": shared_stride(counts, 1),
            **sizes(q, k), "kv_blocks": kv_blocks,
        },
        constants={
            **constants, "PADDED": kv_lens is not None,
            "TAIL": q.shape[1] % block_size[0] != 0,
        },
        warps=tile.warps,
        stages=tile.stages,
    )  # fmt: skip
