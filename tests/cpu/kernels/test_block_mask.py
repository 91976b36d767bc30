"""BlockMask: its layouts are one and the same pattern."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels import BlockMask, SparseError, block_sparse_attention

SETTINGS = settings(deadline=None, max_examples=40, derandomize=True)


@st.composite
def patterns(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int], int, int]:
    q_len, kv_len = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    block = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        -(-q_len // block[0]),
        -(-kv_len // block[1]),
    )
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dense = torch.rand(shape, generator=noise) < draw(st.sampled_from((0.0, 0.1, 0.5, 1.0)))
    return dense, block, q_len, kv_len


def build(pattern: tuple[torch.Tensor, tuple[int, int], int, int]) -> BlockMask:
    dense, block, q_len, kv_len = pattern
    return BlockMask.from_dense(dense, block_size=block, q_len=q_len, kv_len=kv_len)


@SETTINGS
@given(patterns())
def test_dense_round_trip(pattern: tuple[torch.Tensor, tuple[int, int], int, int]) -> None:
    dense, block, q_len, kv_len = pattern
    mask = build(pattern)
    assert torch.equal(mask.to_dense(), dense)
    assert mask.density == pytest.approx(float(dense.float().mean()))
    assert torch.allclose(mask.head_density, dense.float().mean(dim=(2, 3)))
    assert (mask.q_blocks, mask.kv_blocks) == tuple(dense.shape[2:])
    mask.check_range()
    assert (mask.block_size, mask.q_len, mask.kv_len) == (block, q_len, kv_len)


@SETTINGS
@given(patterns())
def test_lists_ascend_and_repeat_their_last_entry(
    pattern: tuple[torch.Tensor, tuple[int, int], int, int],
) -> None:
    mask = build(pattern)
    for counts, lists in zip(mask.counts.view(-1), mask.indices.flatten(0, 2), strict=True):
        count = int(counts)
        chosen = lists[:count].tolist()
        assert chosen == sorted(set(chosen))
        assert set(lists[count:].tolist()) <= {chosen[-1] if chosen else 0}


@SETTINGS
@given(patterns())
def test_csr_is_the_same_pattern(
    pattern: tuple[torch.Tensor, tuple[int, int], int, int],
) -> None:
    dense = pattern[0]
    start, columns = build(pattern).to_csr()
    rows = dense.flatten(0, 2)
    rebuilt = torch.zeros_like(rows)
    for row in range(len(rows)):
        rebuilt[row, columns[start[row] : start[row + 1]].long()] = True
    assert torch.equal(rebuilt, rows)
    assert start[-1] == len(columns) == int(dense.sum())


@SETTINGS
@given(patterns(), st.booleans())
def test_flex_mask_says_the_same_block_by_block_and_token_by_token(
    pattern: tuple[torch.Tensor, tuple[int, int], int, int], padded: bool
) -> None:
    dense, (rows, columns), q_len, kv_len = pattern
    lens = torch.full((dense.shape[0],), kv_len // 2) if padded else None
    flex = build(pattern).to_flex(kv_lens=lens)
    assert torch.equal(flex.to_dense().bool(), dense)
    assert (rows, columns) == flex.BLOCK_SIZE
    b, h, s, t = torch.meshgrid(
        *(torch.arange(n) for n in (*dense.shape[:2], q_len, kv_len)), indexing="ij"
    )
    expected = dense[b, h, s // rows, t // columns]
    if lens is not None:
        expected = expected & (t < kv_len // 2)
    assert torch.equal(flex.mask_mod(b, h, s, t), expected)


def test_from_indices_sorts() -> None:
    chosen = torch.tensor([[[[2, 0], [1, 2]]]])
    mask = BlockMask.from_indices(chosen, block_size=8, q_len=16, kv_len=20)
    assert mask.indices.tolist() == [[[[0, 2], [1, 2]]]]
    assert mask.density == pytest.approx(2 / 3)


def test_full_has_density_one() -> None:
    mask = BlockMask.full(block_size=(8, 5), q_len=17, kv_len=11)
    assert mask.density == 1.0
    assert mask.to_dense().shape == (1, 1, 3, 3)


@pytest.mark.parametrize("block_size", [0, -1, (8,), (8, 0), 1.5, True, "64"])
def test_bad_block_size(block_size: object) -> None:
    with pytest.raises(SparseError, match="block size"):
        BlockMask.full(block_size=block_size, q_len=8, kv_len=8)  # type: ignore[arg-type]


def test_bad_maps_and_lists() -> None:
    with pytest.raises(SparseError, match="bool tensor"):
        BlockMask.from_dense(torch.ones(1, 1, 2, 2), block_size=8, q_len=16, kv_len=16)
    with pytest.raises(SparseError, match="2 x 3 block pairs; found a map of 2 x 2"):
        BlockMask.from_dense(torch.ones(1, 1, 2, 2).bool(), block_size=8, q_len=16, kv_len=17)
    with pytest.raises(SparseError, match="q_len and kv_len"):
        BlockMask.full(block_size=8, q_len=0, kv_len=8)


@pytest.mark.parametrize(
    ("counts", "indices", "words"),
    [
        (2, 3, "numbers 0 to 1"),
        (2, -1, "numbers 0 to 1"),
        (3, 1, "counts reach"),
        (-1, 1, "counts"),
    ],
)
def test_range_check(counts: int, indices: int, words: str) -> None:
    mask = BlockMask.full(block_size=8, q_len=16, kv_len=16).complete()
    mask.counts[0, 0, 0] = counts
    mask.indices[0, 0, 0, 1] = indices
    with pytest.raises(SparseError, match=words):
        mask.check_range()


def test_full_rows_need_no_list() -> None:
    """Lists of two, yet the first and last row compute all five blocks: in every form of the mask."""
    lists = torch.tensor([[4, 9], [3, 1], [2, 9]]).view(1, 1, 3, 2)
    mask = BlockMask.from_lists(
        lists,
        torch.tensor([[[5, 2, 5]]]),
        block_size=(16, 8),
        q_len=48,
        kv_len=40,
        implied_full=True,
    )
    dense = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(mask.to_dense()[0, 0], dense)
    assert mask.indices.shape[3] == 2
    mask.check_range()
    whole = mask.complete()
    assert not whole.implied_full
    assert torch.equal(whole.to_dense(), mask.to_dense())
    assert mask.complete() is whole, "built once"
    start, columns = mask.to_csr()
    assert start.tolist() == [0, 5, 7, 12]
    assert columns.tolist() == [0, 1, 2, 3, 4, 1, 3, 0, 1, 2, 3, 4]
    assert mask.density == pytest.approx(12 / 15)


@pytest.mark.parametrize("backend", ["reference", "gather", "cpu"])
def test_backends_compute_full_rows_without_a_list(backend: str) -> None:
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 40, 2, 16, generator=noise) for _ in range(3))
    short = BlockMask.from_lists(
        torch.randint(0, 5, (1, 2, 5, 1), generator=noise),
        torch.tensor([[[5, 1, 1, 1, 5]]]).expand(1, 2, 5),
        block_size=8,
        q_len=40,
        kv_len=40,
        implied_full=True,
    )
    same = BlockMask.from_dense(short.to_dense(), block_size=8, q_len=40, kv_len=40)
    found = block_sparse_attention(q, k, v, short, backend=backend)
    expected = block_sparse_attention(q, k, v, same, backend=backend)
    assert torch.equal(found, expected)
