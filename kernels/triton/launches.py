"""From tensors to the launches of forward, block mass and pooled kernel; no GPU is needed for them."""

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
from sparsediff.kernels.triton.tiles import Tile, padded_dim, power_of_two

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

    tile = tile or tile_of("forward", q, block_size, arch)
    q_blocks = block_count(q.shape[1], block_size[0])
    return Launch(
        kernel=block_sparse_forward,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (block_size[0] // tile.rows),),
        arguments={
            "Q": q, "K": k, "V": v, "OUT": out, "LSE": lse,
            "COUNTS": counts, "INDICES": indices, "ORDER": order, "LENS": kv_lens, "RULES": rules,
            "scale_log2": scale * LOG2_E,
            **strides(q=q, k=k, v=v, o=out), **list_strides(counts, indices),
            **sizes(q, k), "q_blocks": q_blocks,
            "kv_blocks": block_count(k.shape[1], block_size[1]), "lead": lead, "trail": trail,
        },
        constants={
            **tile_constants(tile, q, block_size),
            "ORDERED": order is not None, "PADDED": kv_lens is not None,
            "TAIL": has_tail(k.shape[1], block_size[1], kv_lens), "RULED": rules is not None,
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
            **strides(q=q, k=k),
            "lse_batch": lse.stride(0), "lse_head": lse.stride(1), "lse_token": lse.stride(2),
            **sizes(q, k), "programs": programs, "out_rows": out_rows,
            "kv_blocks": block_count(k.shape[1], columns),
        },
        constants={
            "ROWS": height, "COLUMNS": tile.columns, "Q_PART": q_part, "BLOCK": columns,
            "D": padded_dim(q.shape[3]), "DIM": q.shape[3], "PADDED": kv_lens is not None,
            "TAIL": has_tail(k.shape[1], columns, kv_lens),
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

    tile = tile or tile_of("pooled", q, (q_block, POOLED_COLUMNS), arch)
    q_blocks = block_count(q.shape[1], q_block)
    return Launch(
        kernel=pooled_kernel,
        grid=(q.shape[0] * q.shape[2] * q_blocks * (q_block // tile.rows),),
        arguments={
            "Q": q, "POOLED_K": keys, "POOLED_V": values, "LOG_COUNT": log_count,
            "CHOSEN": chosen, "PART": part, "PART_LSE": part_lse, "OUT": out, "LSE": lse,
            "scale_log2": scale * LOG2_E, **strides(q=q, k=keys, v=values, p=part, o=out),
            "chosen_batch": shared_stride(chosen, 0), "chosen_head": shared_stride(chosen, 1),
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


def mass_tile(q: Tensor, block_size: tuple[int, int], arch: int) -> Tile:
    """The block mass kernel's tile; its rows may cover several query blocks."""
    return tile_of("mass", q, (1 << 10, block_size[1]), arch)


def mass_part(tile: Tile, rows: int) -> int:
    """How many queries of a block of `rows` the block mass kernel sums up; the block if it fits."""
    return min(tile.rows, power_of_two(rows))
