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
KERNELS = ("forward", "mass", "dq", "dkdv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """``rows`` x ``columns`` of a tile in tokens (queries x keys), warps and pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def _tile(rows: int, columns: int, warps: int, stages: int) -> Tile:
    return Tile(rows=rows, columns=columns, warps=warps, stages=stages)


# kernel -> (small shared memory: sm_86, sm_89, sm_120) or large (sm_80, sm_90, sm_100)
#        -> padded head dim -> the tile for 16-bit inputs.
_HALF: dict[str, dict[bool, dict[int, Tile]]] = {
    "forward": {
        True: {64: _tile(128, 64, 4, 3), 128: _tile(128, 64, 8, 3), 256: _tile(64, 32, 4, 2)},
        False: {64: _tile(128, 64, 8, 3), 128: _tile(64, 64, 4, 2), 256: _tile(64, 32, 4, 2)},
    },
    "mass": {
        True: {64: _tile(128, 64, 4, 3), 128: _tile(128, 64, 8, 3), 256: _tile(64, 64, 4, 2)},
        False: {64: _tile(128, 64, 4, 3), 128: _tile(128, 64, 8, 2), 256: _tile(64, 32, 4, 2)},
    },
    "dq": {
        True: {64: _tile(64, 64, 4, 2), 128: _tile(64, 64, 4, 2), 256: _tile(64, 32, 8, 2)},
        False: {64: _tile(64, 64, 4, 2), 128: _tile(64, 32, 4, 2), 256: _tile(32, 16, 4, 1)},
    },
    "dkdv": {
        True: {64: _tile(64, 64, 4, 3), 128: _tile(32, 64, 4, 2), 256: _tile(32, 32, 8, 1)},
        False: {64: _tile(64, 64, 4, 2), 128: _tile(32, 64, 4, 2), 256: _tile(16, 32, 4, 1)},
    },
}
# float32 multiplies without tensor cores (tf32 would round scores to 10 bits), so small tiles.
_SINGLE: dict[int, Tile] = {
    64: _tile(32, 32, 4, 2),
    128: _tile(32, 32, 4, 2),
    256: _tile(16, 16, 4, 1),
}


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
    """The tile of `kernel` ("forward", "mass", "dq" or "dkdv"), cut to fit into `block_size`.

    `arch` is the compute capability times ten. Raises BackendError for one below 80, for a head dim
    above 256 and for blocks that no tile fits into (see `block_reasons`).
    """
    reasons = block_reasons(block_size)
    if reasons:
        raise BackendError("; ".join(reasons))
    roomy = generation(arch) in {80, 90, 100}
    size = max(64, padded_dim(dim))
    whole = _SINGLE[size] if dtype == torch.float32 else _HALF[kernel][roomy][size]
    return Tile(
        rows=_fit(whole.rows, block_size[0]),
        columns=_fit(whole.columns, block_size[1]),
        warps=min(whole.warps, 4) if _fit(whole.rows, block_size[0]) < whole.rows else whole.warps,
        stages=whole.stages,
    )


def block_reasons(block_size: tuple[int, int]) -> list[str]:
    """Why no tile fits into blocks of this size; tensor cores need 16 x 16."""
    if any(power_of_two(n) < 16 for n in block_size):
        return [f"block_size={block_size} (the triton kernels need multiples of 16)"]
    return []


def power_of_two(n: int) -> int:
    """The largest power of two that divides n."""
    return n & -n


def _fit(tile: int, block: int) -> int:
    """The largest power of two up to `tile` that divides `block`."""
    return min(tile, power_of_two(block))
