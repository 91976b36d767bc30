"""Forward and backward kernels against float64, over shapes, layouts, lengths, blocks and dtypes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calls import Call, random_mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poisoned_memory import LAYOUTS

from sparsediff.kernels import BlockMask

SMALL = (32, 32)


def test_ragged_lengths() -> None:
    Call(mask=random_mask(75, 90, SMALL), batch=2).check()


def test_whole_blocks_have_no_tail() -> None:
    Call(mask=random_mask(64, 96, SMALL)).check()


def test_without_a_gradient_of_the_lse() -> None:
    Call(mask=random_mask(50, 70, SMALL), with_lse=False).check()


@pytest.mark.parametrize("block", [(64, 64), (128, 64), (128, 128), (64, 128), (16, 48), (96, 32)])
def test_block_sizes(block: tuple[int, int]) -> None:
    rows, columns = block
    Call(mask=random_mask(rows + 9, columns * 2 - 7, block, heads=1, density=0.8), heads=1).check()


@pytest.mark.parametrize("dim", [8, 64, 96, 128])
def test_head_dims(dim: int) -> None:
    Call(mask=random_mask(40, 56, SMALL, heads=1, density=0.8), dim=dim, heads=1).check()


@pytest.mark.parametrize("dim", [32, 96, 256])
def test_float16(dim: int) -> None:
    Call(mask=random_mask(70, 90, (64, 64), heads=1), heads=1, dim=dim, dtype=torch.float16).check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout: str) -> None:
    Call(mask=random_mask(40, 70, SMALL), batch=2, layouts=(layout, layout, layout)).check()


@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_masks_shared_by_batch_and_heads(batch: int, heads: int) -> None:
    Call(mask=random_mask(60, 60, SMALL, batch=batch, heads=heads), batch=2, heads=3).check()


@pytest.mark.parametrize("lens", [(0, 70), (32, 33), (64, 1)])
@pytest.mark.parametrize("shared", [True, False])
def test_padded_keys(lens: tuple[int, int], shared: bool) -> None:
    mask = random_mask(50, 70, SMALL, batch=1 if shared else 2)
    Call(mask=mask, batch=2, kv_lens=lens).check()


def test_empty_rows_give_zero_and_no_gradient() -> None:
    dense = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(3)) < 0.5
    dense[:, 0] = False
    dense[:, 1, 1] = False
    mask = BlockMask.from_dense(dense, block_size=SMALL, q_len=80, kv_len=80)
    Call(mask=mask).check()


@pytest.mark.parametrize("lens", [None, (45, 64)])
def test_full_rows_without_a_list(lens: tuple[int, ...] | None) -> None:
    listed = random_mask(100, 100, SMALL, density=0.5, seed=5)
    dense = listed.to_dense()
    dense[:, :, 2] = True
    dense[:, 1, 0] = True
    mask = BlockMask.from_dense(dense, block_size=SMALL, q_len=100, kv_len=100)
    short = replace(mask, indices=mask.indices[..., :1].contiguous(), implied_full=True)
    counts = torch.where(short.counts == 4, 4, short.counts.clamp(max=1))
    Call(mask=replace(short, counts=counts), batch=2, kv_lens=lens).check()


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    q_len=st.integers(1, 70),
    kv_len=st.integers(1, 70),
    block=st.tuples(st.sampled_from([16, 32, 64]), st.sampled_from([16, 32, 64])),
    dim=st.sampled_from([3, 16, 24, 40]),
    batch=st.integers(1, 2),
    shared=st.booleans(),
    density=st.sampled_from([0.2, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_geometry(
    q_len: int,
    kv_len: int,
    block: tuple[int, int],
    dim: int,
    batch: int,
    shared: bool,
    density: float,
    seed: int,
) -> None:
    mask = random_mask(
        q_len, kv_len, block, batch=1 if shared else batch, heads=1, density=density, seed=seed
    )
    Call(mask=mask, batch=batch, heads=1, dim=dim, seed=seed).check()
