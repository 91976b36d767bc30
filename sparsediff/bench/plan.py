"""The plan of the GPU table: which shapes, which densities, how long."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsediff.bench.turns import check_densities
from sparsediff.kernels import SparseError
from sparsediff.kernels.block_mask import block_count, block_shape

# Videos of 480p (Wan 2.1, with room) and 720p (Wan 2.1, HunyuanVideo), then image sizes; 75600 and
# 119056 leave a ragged tail behind blocks of 128 and of 64.
# Long sequences first: the targets are theirs, and what time does not suffice for comes last.
TOKENS = (33280, 75600, 119056, 16384, 4096)
HEADS = 40  # Wan 2.1 14B has 40 of dim 128, CogVideoX 48 of dim 64
CASE_FLOP = 60e12  # of one dense forward: 0.1 s at 600 TFLOP/s
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Self-attention of one sequence: ``tokens`` x ``heads`` x ``dim``; SparseError below 1."""

    tokens: int
    heads: int
    dim: int

    def __post_init__(self) -> None:
        if min(self.tokens, self.heads, self.dim) < 1:
            raise SparseError(f"{self}: every size must be at least 1.")

    @property
    def flop(self) -> float:
        """Floating-point operations of dense attention forward: 4 s^2 h d."""
        return 4.0 * self.tokens**2 * self.heads * self.dim

    @classmethod
    def bounded(cls, tokens: int, dim: int) -> Shape:
        """As many heads as CASE_FLOP allows, at most HEADS: longer sequences get fewer."""
        one = cls(tokens=tokens, heads=1, dim=dim).flop
        return cls(tokens=tokens, heads=max(1, min(HEADS, int(CASE_FLOP / one))), dim=dim)


def default_shapes() -> tuple[Shape, ...]:
    """Every number of TOKENS at head dim 128, then at 64."""
    return tuple(Shape.bounded(tokens, dim) for dim in (128, 64) for tokens in TOKENS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `sparsediff bench --kernel` measures on a GPU, in order, and how long it may take.

    ``backends`` are measured against the fastest kernel of ``baselines``; the ``dense`` kernels beside
    those are only listed. ``block_size`` tokens per (query, key) block of the sparse kernels; AdaSpa
    searches in square blocks of the key size. ``minutes`` is the limit of the whole run and
    ``case_seconds`` that of timing one shape; ``repeat`` the most rounds.
    Raises SparseError for a number out of range.
    """

    shapes: tuple[Shape, ...]
    densities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 1.0)
    dtype: torch.dtype = torch.bfloat16
    block_size: tuple[int, int] = (128, 64)
    backends: tuple[str, ...] = ("triton",)
    baselines: tuple[str, ...] = ("cudnn", "flash", "flex")
    dense: tuple[str, ...] = ("efficient", "xformers")
    backward: bool = True
    device: str = "cuda"
    repeat: int = 15
    minutes: float = 8.5
    case_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_densities(self.densities)
        object.__setattr__(self, "block_size", block_shape(self.block_size))
        if self.dtype not in DTYPES:
            known = ", ".join(str(x).removeprefix("torch.") for x in DTYPES)
            raise SparseError(f"{self.dtype} is not measured; choose one of {known}.")
        if self.repeat < 1 or self.minutes <= 0 or self.case_seconds <= 0:
            raise SparseError(
                f"repeat={self.repeat}, minutes={self.minutes}: needs at least one round and a "
                f"positive time."
            )
        if not self.shapes or not self.backends or not self.baselines:
            raise SparseError("A plan needs at least one shape, one backend and one baseline.")

    def kept_blocks(self, density: float, tokens: int) -> int:
        """Key blocks per row at a density: rounded, at least one."""
        return max(1, round(density * block_count(tokens, self.block_size[1])))
