"""One block mass by the triton backend, and what it must be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from attention_oracle import block_sums, exact_attention
from poisoned_memory import laid_out, nan_in_new_tensors
from torch import Tensor

from sparsediff.kernels.inputs import mass_inputs
from sparsediff.kernels.triton import TritonBackend

SCALE = 0.3


@dataclass(frozen=True, kw_only=True)
class Mass:
    """The block mass of random numbers in blocks of ``block``."""

    q_len: int
    kv_len: int
    block: tuple[int, int]
    batch: int = 1
    heads: int = 2
    dim: int = 32
    dtype: torch.dtype = torch.float32
    layout: str = "slice"
    kv_lens: tuple[int, ...] | None = None
    empty: bool = False

    def check(self) -> None:
        """Every sum within (terms + 8) float32 units and the relative error of its weights."""
        generator = torch.Generator().manual_seed(0)
        q, k = (
            torch.randn(self.batch, n, self.heads, self.dim, generator=generator).to(self.dtype)
            for n in (self.q_len, self.kv_len)
        )
        keep = torch.ones(self.batch, self.heads, self.q_len, self.kv_len, dtype=torch.bool)
        lens = None if self.kv_lens is None else torch.tensor(self.kv_lens)
        if lens is not None:
            keep = keep & (torch.arange(self.kv_len) < lens[:, None])[:, None, None]
        q, k = laid_out(q, self.layout), laid_out(k, self.layout)
        exact = exact_attention(q, k, k, keep, SCALE)
        lse = exact.lse.float()
        if self.empty:
            lse[..., ::3] = -torch.inf
        weights = exact.weights.masked_fill(lse.isneginf()[..., None], 0.0)
        expected = block_sums(weights, self.block)
        relative = exact.weight_error + exact.lse_error
        relative += (self.block[0] * self.block[1] + 8) * 2.0**-24
        error = (self.found(q, k, lse, lens).double() - expected).abs()
        assert bool((error <= relative * expected + 1e-30).all()), float(error.max())

    def found(self, q: Tensor, k: Tensor, lse: Tensor, lens: Tensor | None) -> Tensor:
        """The kernel's result in new memory that holds NaN."""
        inputs = mass_inputs(q, k, lse, block_size=self.block, scale=SCALE, kv_lens=lens)
        backend = TritonBackend()
        assert backend.mass_reasons(inputs) == []
        with nan_in_new_tensors():
            return backend.mass(inputs)
