"""A whole search with tensors that hold no numbers: whatever the host would read of them is an error.

On a GPU such a read makes the host wait. The GPU suite asserts the same with CUDA's own check.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_calls import Recorder, call
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.global_tokens import with_global_tokens
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.triton import TritonBackend
from sparsediff.search import AdaSpa, BladeASA, Step, TokenGrid
from sparsediff.search.head_share import HeadShare
from sparsediff.search.sampled_probe import Probe

BLOCK = 16
GRIDS = (
    TokenGrid(frames=3, height=8, width=10),
    TokenGrid(frames=3, height=8, width=10, text_after=70),
    TokenGrid(frames=3, height=8, width=10, text_before=70),
)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("budgets", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_search_and_call_never_wait(grid: TokenGrid, budgets: bool, padded: bool) -> None:
    """Block mass, selection, lists, work order, attention and the report's density."""
    method = AdaSpa(head_budgets=budgets, density=0.5, block_size=BLOCK)
    with FakeTensorMode():
        q, k, v = (torch.empty(2, grid.tokens, 4, 32) for _ in range(3))
        lens = torch.empty(2, dtype=torch.int64) if padded else None
        lse = torch.empty(2, 4, grid.tokens)
        mass = TritonBackend().mass(
            MassInputs(q=q, k=k, lse=lse, block_size=(BLOCK, BLOCK), scale=1.0, kv_lens=lens)
        )
        mask = method.mask(mass, grid)
        out, _ = TritonBackend().attention(
            AttentionInputs(q=q, k=k, v=v, mask=mask, scale=1.0, kv_lens=lens)
        )
        assert out.shape == q.shape
        assert mask.head_density.shape == (2, 4)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_probe_and_its_call_never_wait(grid: TokenGrid, shared: bool, padded: bool) -> None:
    """Draw, scores, energy, lists, attention, and global tokens that no kernel may read back."""
    method = BladeASA(density=0.5, block_size=BLOCK, global_window=7)
    with FakeTensorMode(), torch.no_grad():
        q, k, v = (torch.empty(2, grid.tokens, 2, 32) for _ in range(3))
        lens = torch.empty(2, dtype=torch.int64) if padded else None
        share = None
        if shared:
            order = torch.empty(4, dtype=torch.int64)
            share = HeadShare(
                shares=((2, 0), (1, 3)), rank=1, order=order, back=order, collect=torch.stack
            )
        found = replace(call(grid, Step(index=3), Recorder(), [q, k, v]), kv_lens=lens, share=share)
        mask = method.mask(found.probe(Probe(block=BLOCK, samples=5)), grid)
        inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=1.0, kv_lens=lens, return_lse=True)
        out, lse = TritonBackend().attention(inputs)
        assert lse is not None
        out, lse = with_global_tokens(inputs, out, lse, 7)
        assert out.shape == q.shape
        assert mask.head_density.shape == (2, 2)


def test_a_host_read_would_be_seen() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        chosen = torch.empty(1, 1, 4, 4) > 0
        BlockMask.from_dense(chosen, block_size=16, q_len=64, kv_len=64)
