"""Which tile each kernel works in, by GPU generation, head dim and dtype: measured by the compiler.

Every entry compiles without spilling registers and within the shared memory of its generation; the
compile gate (`make kernel-gates`) fails otherwise, and docs/kernels.md lists what it found. A tile
never depends on the number of tokens: that would compile anew for every video length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsediff.kernels.errors import BackendError

# Compute capabilities the gate compiles for. A part in between takes the entries of the one below it.
GENERATIONS = (80, 89, 90, 100, 120)
# Head dims as the kernels see them; others are padded to the next one inside the kernel.
PADDED_DIMS = (16, 32, 64, 128, 256)
KERNELS = ("forward", "pooled", "mass", "dq", "dkdv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """``rows`` x ``columns`` of a tile in tokens (queries x keys), warps and pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def _tile(rows: int, columns: int, warps: int, stages: int) -> Tile:
    return Tile(rows=rows, columns=columns, warps=warps, stages=stages)


# kernel -> generation -> padded head dim -> tiles for 16-bit inputs; the first that fits is taken.
# On 80, 89 and 120 chained products keep the weights in registers only where rows >= head dim, and the
# loop over 64 keys of 128 dims spills with a rule's walk or two tiles per block. 89 stands for 86 and
# 120 too, with 99 KiB of shared memory per program; 90 for 100 where that has no row of its own.
_HALF: dict[str, dict[int, dict[int, tuple[Tile, ...]]]] = {
    "forward": {
        80: {
            32: (_tile(128, 64, 4, 3), _tile(64, 64, 4, 3)),
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 32, 8, 4), _tile(64, 32, 4, 3)),
            256: (_tile(64, 32, 8, 2),),
        },
        89: {
            32: (_tile(128, 64, 4, 3), _tile(64, 64, 4, 3)),
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 32, 8, 3), _tile(64, 32, 4, 2)),
            256: (_tile(64, 32, 8, 2),),
        },
        90: {
            64: (_tile(128, 64, 4, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            256: (_tile(64, 32, 8, 2),),
        },
    },
    "pooled": {
        80: {
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 64, 8, 3), _tile(64, 32, 4, 3)),
            256: (_tile(64, 32, 8, 2),),
        },
        89: {
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 32, 8, 3), _tile(64, 32, 4, 3)),
            256: (_tile(64, 32, 8, 2),),
        },
        90: {
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            256: (_tile(64, 32, 8, 2),),
        },
        100: {
            64: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            128: (_tile(128, 64, 8, 3), _tile(64, 64, 4, 3)),
            256: (_tile(64, 32, 4, 2),),
        },
    },
    "mass": {
        80: {
            64: (_tile(128, 64, 4, 3),),
            128: (_tile(128, 64, 8, 3),),
            256: (_tile(64, 64, 8, 2),),
        },
        89: {
            64: (_tile(128, 64, 4, 3),),
            128: (_tile(128, 64, 8, 2),),
            256: (_tile(64, 32, 4, 2),),
        },
        90: {
            64: (_tile(128, 64, 4, 3),),
            128: (_tile(128, 64, 8, 3),),
            256: (_tile(64, 64, 4, 2),),
        },
    },
    "dq": {
        80: {64: (_tile(64, 64, 4, 2),), 128: (_tile(64, 32, 4, 3),), 256: (_tile(64, 32, 8, 2),)},
        89: {64: (_tile(64, 64, 4, 2),), 128: (_tile(64, 16, 4, 2),), 256: (_tile(32, 16, 4, 2),)},
        90: {64: (_tile(64, 64, 4, 2),), 128: (_tile(64, 64, 4, 2),), 256: (_tile(64, 16, 8, 2),)},
        100: {64: (_tile(64, 64, 4, 2),), 128: (_tile(64, 64, 4, 2),), 256: (_tile(64, 32, 8, 2),)},
    },
    "dkdv": {
        80: {64: (_tile(64, 64, 4, 3),), 128: (_tile(32, 64, 4, 2),), 256: (_tile(32, 32, 8, 2),)},
        89: {64: (_tile(64, 64, 4, 3),), 128: (_tile(32, 64, 4, 2),), 256: (_tile(16, 32, 8, 2),)},
        90: {64: (_tile(64, 64, 4, 3),), 128: (_tile(32, 64, 4, 2),), 256: (_tile(16, 64, 8, 2),)},
        100: {64: (_tile(64, 64, 4, 3),), 128: (_tile(32, 64, 4, 2),), 256: (_tile(32, 64, 8, 2),)},
    },
}
# float32 multiplies without tensor cores (tf32 would round scores to 10 bits): every thread holds whole
# rows of both factors, so tiles are small, and none for 256 dims keeps them in registers.
_SINGLE: dict[int, tuple[Tile, ...]] = {64: (_tile(16, 16, 4, 2),), 128: (_tile(16, 16, 8, 2),)}
SINGLE_DIM = max(_SINGLE)


def padded_dim(dim: int) -> int:
    """The head dim that the kernels compute with; raises BackendError above 256."""
    for padded in PADDED_DIMS:
        if dim <= padded:
            return padded
    raise BackendError(f"head dim {dim}: the triton kernels take up to {PADDED_DIMS[-1]}.")


def generation(arch: int) -> int:
    """The entry of GENERATIONS that a compute capability such as 86 uses; BackendError below 80."""
    known = [entry for entry in GENERATIONS if entry <= arch]
    if not known:
        raise BackendError(
            f"compute capability {arch // 10}.{arch % 10}: the triton kernels need 8.0 or newer."
        )
    return 89 if arch in range(86, 90) else known[-1]


def tile_for(
    kernel: str, *, arch: int, dim: int, dtype: torch.dtype, block_size: tuple[int, int]
) -> Tile:
    """The tile of `kernel` (one of KERNELS), cut to fit into `block_size`.

    `arch` is the compute capability times ten. Raises BackendError for one below 80, for a head dim
    above 256 (128 in float32) and for blocks that no tile fits into (see `block_reasons`).
    """
    reasons = block_reasons(block_size) + dim_reasons(dim, dtype)
    if reasons:
        raise BackendError("; ".join(reasons))
    row = _SINGLE if dtype == torch.float32 else _half_row(kernel, arch)
    tiles = next(row[size] for size in sorted(row) if size >= padded_dim(dim))
    whole = next(
        (
            tile
            for tile in tiles
            if _fits(tile.rows, block_size[0]) and _fits(tile.columns, block_size[1])
        ),
        tiles[-1],
    )
    return Tile(
        rows=_fit(whole.rows, block_size[0]),
        columns=_fit(whole.columns, block_size[1]),
        warps=whole.warps,
        stages=whole.stages,
    )


def _half_row(kernel: str, arch: int) -> dict[int, tuple[Tile, ...]]:
    """The row of the table for 16-bit inputs: tiles by padded head dim."""
    by_generation = _HALF[kernel]
    wanted = generation(arch)
    if wanted == 120:
        wanted = 89
    if wanted == 89 and wanted not in by_generation:
        wanted = 80
    return by_generation.get(wanted, by_generation[90])


def dim_reasons(dim: int, dtype: torch.dtype) -> list[str]:
    """Why no kernel computes heads of this size in this dtype."""
    if dim > PADDED_DIMS[-1]:
        return [f"head dim {dim} (needs {PADDED_DIMS[-1]} or less)"]
    if dtype == torch.float32 and dim > SINGLE_DIM:
        return [f"head dim {dim} in float32 (needs {SINGLE_DIM} or less, or a 16-bit dtype)"]
    return []


def block_reasons(block_size: tuple[int, int]) -> list[str]:
    """Why no tile fits into blocks of this size; tensor cores need 16 x 16."""
    if any(power_of_two(n) < 16 for n in block_size):
        return [f"block_size={block_size} (the triton kernels need multiples of 16)"]
    return []


def power_of_two(n: int) -> int:
    """The largest power of two that divides n."""
    return n & -n


def _fits(tile: int, block: int) -> bool:
    return _fit(tile, block) == tile


def _fit(tile: int, block: int) -> int:
    """The largest power of two up to `tile` that divides `block`."""
    return min(tile, power_of_two(block))
