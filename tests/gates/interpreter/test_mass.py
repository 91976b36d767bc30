"""The block mass kernel against float64, over block sizes, lengths, layouts and dtypes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from attention_oracle import block_sums, exact_attention
from poisoned_memory import LAYOUTS, laid_out, nan_in_new_tensors
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


@pytest.mark.parametrize(
    "block", [(32, 32), (64, 64), (128, 64), (128, 128), (256, 64), (16, 16), (8, 64), (48, 48)]
)
def test_block_sizes(block: tuple[int, int]) -> None:
    Mass(q_len=block[0] + 50, kv_len=2 * block[1] + 9, block=block).check()


@pytest.mark.parametrize("dim", [8, 96])
def test_head_dims(dim: int) -> None:
    Mass(q_len=70, kv_len=75, block=(32, 32), dim=dim, heads=1).check()


def test_whole_blocks_have_no_tail() -> None:
    Mass(q_len=64, kv_len=128, block=(64, 64)).check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout: str) -> None:
    Mass(q_len=70, kv_len=90, block=(32, 32), batch=2, layout=layout).check()


@pytest.mark.parametrize("lens", [(0, 90), (33, 64)])
def test_padded_keys_weigh_nothing(lens: tuple[int, int]) -> None:
    Mass(q_len=50, kv_len=90, block=(32, 32), batch=2, kv_lens=lens).check()


def test_queries_without_keys_weigh_nothing() -> None:
    Mass(q_len=50, kv_len=90, block=(32, 32), empty=True).check()


@pytest.mark.parametrize("dim", [64, 256])
def test_float16(dim: int) -> None:
    Mass(q_len=100, kv_len=90, block=(64, 64), dtype=torch.float16, dim=dim).check()
