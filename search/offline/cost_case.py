"""CostCase: what the cost of a pattern depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version

import torch

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.ranked_call import device_name, versions
from sparsediff.kernels.registry import choose
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.token_grid import TokenGrid

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostCase:
    """Self-attention of one layer: ``[batch, grid.tokens, heads, head_dim]`` of a dtype on a device.

    ``backend`` as in `block_sparse_attention`. Batch items cost the same, so their number is no part
    of it. Raises SparseError when a size is not a whole number of at least 1.
    """

    grid: TokenGrid
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    block_size: int = 64
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name in ("heads", "head_dim", "block_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SparseError(f"CostCase.{name}={value!r}: needs a whole number >= 1.")

    def unmeasurable(self) -> str | None:
        """Why no kernel is timed for such a case; None when one can be."""
        if self.device.type not in {"cpu", "cuda"}:
            return f"nothing is timed on {self.device.type}"
        if self.dtype not in DTYPES:
            return f"{str(self.dtype).removeprefix('torch.')} is not timed"
        return None

    def kernel(self) -> str:
        """The backend that such calls run with.

        Raises BackendError when the one named or pinned cannot.
        """
        tokens = 2 * self.block_size
        q = torch.zeros(1, tokens, 1, self.head_dim, dtype=self.dtype, device=self.device)
        mask = BlockMask.full(
            block_size=self.block_size, q_len=tokens, kv_len=tokens, device=self.device
        )
        inputs = AttentionInputs(q=q, k=q, v=q, mask=mask, scale=self.head_dim**-0.5)
        return choose(self.backend, inputs).name

    def within(self, operations: float) -> CostCase:
        """The case with so many operations in a dense call: fewer heads, then fewer frames or rows."""
        most = int((operations / (4 * self.head_dim)) ** 0.5) - self.grid.text_tokens
        grid = self.grid
        if grid.video_tokens > most:
            period, count = periods(grid)
            kept = min(count, max(2, most // period))
            image = grid.frames == 1
            grid = replace(grid, height=kept) if image else replace(grid, frames=kept)
        heads = int(operations / (4 * grid.tokens**2 * self.head_dim))
        return replace(self, grid=grid, heads=max(1, min(self.heads, heads)))

    def words(self, kernel: str) -> str:
        """The case in words: shape, dtype, blocks and kernel."""
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.grid}, {self.heads} heads of {self.head_dim}, {dtype}, "
            f"blocks of {self.block_size}, {kernel} kernels"
        )

    def key(self, kernel: str) -> str:
        """Its name in the file of costs: machine, case, versions."""
        package = f"sparsediff {version('sparsediff')}"
        return ", ".join([device_name(self.device), self.words(kernel), versions(), package])
