"""Token orders: permutations of any grid that keep neighbours together, and that no file holds."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels import SparseError
from sparsediff.search import AdaSpa, PatternTable, PlannedHead, TokenGrid
from sparsediff.search.patterns.pattern import Full
from sparsediff.search.token_order import grid_order, tile_shape, video_order

SIZES = list(itertools.product(range(1, 8), repeat=3))
ORDERS = ("raster", "gilbert", "tile-8", "tile-64", "tile-7")
sizes = st.tuples(*[st.integers(1, 7)] * 3)


def steps(size: tuple[int, int, int], order: str) -> torch.Tensor:
    """How far each step of the order goes along each axis: ``[n - 1, 3]``."""
    frames, height, width = size
    grid = TokenGrid(frames=frames, height=height, width=width, order=order)
    return grid.positions().diff(dim=0).abs()


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None, max_examples=25)  # a curve of hundreds of tokens, asked for each
@given(size=sizes, before=st.integers(0, 5))
def test_index_and_position_are_inverse(
    order: str, size: tuple[int, int, int], before: int
) -> None:
    frames, height, width = size
    grid = TokenGrid(
        frames=frames, height=height, width=width, text_before=before, text_after=1, order=order
    )
    number = torch.arange(grid.video_tokens)
    assert torch.equal(video_order(size, order).sort().values, number)
    positions = grid.positions().tolist()
    for token in range(before, before + grid.video_tokens):
        place = grid.position(token)
        assert place == tuple(positions[token - before])
        assert grid.index(*place) == token


def test_the_curve_never_jumps() -> None:
    """One token along one axis; where an edge is odd, some steps go along two. No step goes further."""
    jumps = 0
    for size in SIZES:
        moved = steps(size, "gilbert")
        assert bool((moved <= 1).all()), size
        along = moved.sum(dim=1)
        assert bool((along >= 1).all())
        diagonal = int((along > 1).sum())
        if all(edge % 2 == 0 or edge == 1 for edge in size):
            assert diagonal == 0, size
        if 1 in size:  # in a plane the published curve has at most one
            assert diagonal <= 1, size
        assert int(along.max() if len(along) else 0) <= 2, size
        jumps += diagonal
    tokens = sum(a * b * c for a, b, c in SIZES)
    assert jumps / tokens < 0.03


DIAGONAL = {(21, 45, 80): 552, (21, 30, 52): 88, (1, 68, 120): 0, (1, 44, 81): 1, (5, 15, 25): 40}


@pytest.mark.parametrize("size", DIAGONAL)
def test_the_curve_at_real_sizes(size: tuple[int, int, int]) -> None:
    """Videos with odd edges, among them Wan at 720p and 480p: how many steps are diagonal."""
    along = steps(size, "gilbert").sum(dim=1)
    assert int(along.max()) <= 2
    assert int((along == 2).sum()) == DIAGONAL[size]


@settings(deadline=None)
@given(size=sizes, tokens=st.sampled_from([1, 7, 8, 12, 64]))
def test_tiles_hold_neighbours(size: tuple[int, int, int], tokens: int) -> None:
    """Whole tiles come whole, ragged ones too, and each begins next to where the last one lay."""
    tile = tile_shape(size, tokens)
    assert tile[0] * tile[1] * tile[2] == tokens
    frames, height, width = size
    grid = TokenGrid(frames=frames, height=height, width=width, order=f"tile-{tokens}")
    home = [tuple(row) for row in (grid.positions() // torch.tensor(tile)).tolist()]
    visited = [key for key, _ in itertools.groupby(home)]
    assert len(visited) == len(set(visited)), "a tile is left and entered again"
    for here, there in itertools.pairwise(visited):
        assert sum(abs(a - b) for a, b in zip(here, there, strict=True)) == 1


@pytest.mark.parametrize(
    ("size", "tokens", "tile"),
    [
        ((8, 16, 24), 64, (4, 4, 4)),
        ((1, 64, 64), 64, (1, 8, 8)),
        ((21, 45, 80), 64, (4, 4, 4)),
        ((2, 64, 64), 64, (2, 4, 8)),
        ((9, 9, 9), 27, (3, 3, 3)),
        ((5, 5, 5), 7, (7, 1, 1)),
    ],
)
def test_tile_shapes(size: tuple[int, int, int], tokens: int, tile: tuple[int, ...]) -> None:
    found = tile_shape(size, tokens)
    if len(set(size)) == 1:
        assert sorted(found) == sorted(tile)
    else:
        assert found == tile


def test_blocks_are_more_compact_than_raster_rows() -> None:
    """The mean span of a block of 64 along its longest axis, which is what the orders are for."""

    def span(order: str) -> float:
        grid = TokenGrid(frames=8, height=24, width=32, order=order)
        blocks = grid.positions().unflatten(0, (-1, 64))
        return float((blocks.amax(1) - blocks.amin(1) + 1).amax(-1).float().mean())

    assert span("tile-64") == 4
    assert span("gilbert") <= 8
    assert span("raster") == 32


def test_plans_and_files_stay_raster() -> None:
    grid = TokenGrid(frames=2, height=4, width=4)
    assert list(grid.sizes) == ["frames", "height", "width", "text_before", "text_after"]
    assert str(grid) == "TokenGrid(2x4x4)"
    other = TokenGrid(**grid.sizes, order="gilbert")
    assert other != grid
    assert str(other) == "TokenGrid(2x4x4, gilbert)"
    table = {"block_size": 8, "starts": (0.2,), "density": 1.0}
    table["buckets"] = (((PlannedHead(pattern=Full()),),),)
    assert PatternTable(grid=grid, **table).grid == grid
    with pytest.raises(SparseError, match="raster order"):
        PatternTable(grid=other, **table)


@pytest.mark.parametrize("bad", ["hilbert", "tile", "tile-", "tile-0", "tile-6.4", "tile--1", None])
def test_an_unknown_order_is_an_error(bad: object) -> None:
    with pytest.raises(SparseError, match=r"order=.*'tile-64'"):
        TokenGrid(frames=1, height=1, width=1, order=bad)  # type: ignore[arg-type]


def test_methods_take_the_orders_by_name() -> None:
    assert AdaSpa().token_order == "raster"
    assert grid_order(AdaSpa(token_order="tile", block_size=32).token_order, 32) == "tile-32"
    with pytest.raises(SparseError, match=r"token_order='tile-64': needs one of 'raster', 'tile'"):
        AdaSpa(token_order="tile-64")
