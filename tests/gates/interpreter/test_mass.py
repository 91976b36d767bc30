"""The block mass kernel against float64, over block sizes, lengths, layouts and dtypes."""

from __future__ import annotations

import pytest
import torch
from mass_calls import Mass
from poisoned_memory import LAYOUTS


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
