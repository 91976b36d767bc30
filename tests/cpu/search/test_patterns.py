"""Patterns against their definition token by token, and the fit of diagonals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels import SparseError
from sparsediff.search import TokenGrid
from sparsediff.search.offline.diagonal_fit import fitted_diagonals
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_mask import pattern_density, pattern_mask, reordered_heads
from sparsediff.search.patterns.token_reorder import by_place, periods

BLOCK = 8
GRIDS = st.builds(
    TokenGrid,
    frames=st.integers(1, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 9),
    text_before=st.integers(0, 11),
    text_after=st.integers(0, 11),
)
WIDTHS = st.floats(0, 1.5)
PATTERNS = st.one_of(
    st.just(Full()),
    st.just(Skip()),
    st.builds(Diagonal, half_width=WIDTHS),
    st.builds(
        MultiDiagonal,
        half_widths=st.lists(WIDTHS, min_size=1, max_size=3).map(tuple),
        everywhere=st.booleans(),
    ),
    st.builds(
        MultiDiagonal,
        half_widths=st.tuples(WIDTHS),
        everywhere=st.just(True),
        by_place=st.just(True),
    ),
    st.builds(Stripe, columns=st.just((0,))),
)


def video_pairs(pattern: Pattern, grid: TokenGrid, query: int, key: int) -> bool:
    """Whether two video tokens, counted in the order that the pattern is computed in, attend."""
    period, count = periods(grid)
    if isinstance(pattern, Diagonal):
        return abs(query - key) <= round(pattern.half_width * period)
    assert isinstance(pattern, MultiDiagonal)
    widths = [round(width * period) for width in pattern.half_widths]
    if pattern.by_place:
        return abs(query - key) <= widths[0] * count + count - 1
    distances = 3 * count + 3 if pattern.everywhere else len(widths)
    return any(
        abs(abs(query - key) - distance * period) <= widths[min(distance, len(widths) - 1)]
        or abs(abs(query - key) + distance * period) <= widths[min(distance, len(widths) - 1)]
        for distance in range(distances if pattern.everywhere else min(len(widths), count))
    )


def expected(pattern: Pattern, grid: TokenGrid) -> torch.Tensor:
    """The block map by looping over all token pairs."""
    blocks = -(-grid.tokens // BLOCK)
    found = torch.zeros(blocks, blocks, dtype=torch.bool)
    if isinstance(pattern, Skip):
        return found
    text = [any(grid.position(t) is None for t in range(b * BLOCK, min(grid.tokens, (b + 1) * BLOCK)))
            for b in range(blocks)]  # fmt: skip
    for m in range(blocks):
        for n in range(blocks):
            if isinstance(pattern, Full) or text[m] or text[n]:
                found[m, n] = True
            elif isinstance(pattern, Stripe):
                found[m, n] = n in pattern.columns
            else:
                found[m, n] = any(
                    video_pairs(pattern, grid, query, key)
                    for query in range(m * BLOCK, min(grid.tokens, (m + 1) * BLOCK))
                    for key in range(n * BLOCK, min(grid.tokens, (n + 1) * BLOCK))
                )
    return found


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, patterns=st.lists(PATTERNS, min_size=1, max_size=3))
def test_every_pattern_is_its_definition(grid: TokenGrid, patterns: list[Pattern]) -> None:
    mask = pattern_mask(patterns, grid, BLOCK)
    dense = mask.to_dense()[0]
    for head, pattern in enumerate(patterns):
        wanted = expected(pattern, grid)
        assert torch.equal(dense[head], wanted), (pattern, grid)
        share = pattern_density(pattern, grid, BLOCK)
        assert share == pytest.approx(float(wanted.float().mean()))


@pytest.mark.parametrize(
    "grid", [TokenGrid(frames=1, height=1, width=64), TokenGrid(frames=2, height=4, width=8)]
)
def test_widths_of_distances_that_a_grid_lacks_still_count(grid: TokenGrid) -> None:
    """A wide diagonal around a period beyond the last one reaches back into the video."""
    pattern = MultiDiagonal(half_widths=(0.0, 0.0, 1.8), everywhere=True)
    assert torch.equal(
        pattern_mask([pattern], grid, BLOCK).to_dense()[0, 0], expected(pattern, grid)
    )


def test_patterns_keep_their_rules() -> None:
    """Kernels that compute blocks do so for windows, for other heads they read the lists."""
    grid = TokenGrid(frames=4, height=4, width=4)
    patterns = [
        Diagonal(half_width=0.5),
        MultiDiagonal(half_widths=(0.0,), everywhere=True),
        MultiDiagonal(half_widths=(0.5,), everywhere=True, by_place=True),
        MultiDiagonal(half_widths=(0.5, 0.0)),
        Stripe(columns=(1,)),
    ]
    rules = pattern_mask(patterns, grid, BLOCK).rules
    assert rules is not None
    assert [int(period) > 0 for period in rules.table[:, 0]] == [True, True, True, False, False]
    assert reordered_heads(patterns) == (2,)


@given(grid=GRIDS)
def test_reordering_is_a_permutation_that_leaves_text_alone(grid: TokenGrid) -> None:
    order = by_place(grid)
    assert sorted(order.tolist()) == list(range(grid.tokens))
    for place, token in enumerate(order.tolist()):
        if grid.position(place) is None:
            assert token == place
    period, count = periods(grid)
    first = grid.text_before
    start = [token - first for token in order[first : first + count].tolist()]
    assert start == [frame * period for frame in range(count)]


def test_a_carried_over_width_keeps_its_meaning() -> None:
    """Half a frame is half a frame on any grid."""
    for frames, height, width in ((4, 4, 4), (6, 8, 12)):
        grid = TokenGrid(frames=frames, height=height, width=width)
        mask = pattern_mask([Diagonal(half_width=0.5)], grid, 1).to_dense()[0, 0]
        half = height * width // 2
        assert mask[0].sum() == half + 1
        assert mask[frames * height * width // 2].sum() == 2 * half + 1


def test_the_fit_finds_the_diagonals_that_hold_the_mass() -> None:
    grid = TokenGrid(frames=6, height=8, width=8)  # a frame is 8 blocks of 8
    blocks = grid.tokens // BLOCK
    mass = torch.full((2 * blocks - 1,), 1e-6, dtype=torch.float64)
    for distance, widths in ((0, 1), (8, 2), (16, 0)):
        for side in (-1, 1):
            for near in range(-widths, widths + 1):
                mass[blocks - 1 + side * distance + near] = blocks - distance
    pairs = sum(blocks - abs(place - blocks + 1) for place in range(len(mass)) if mass[place] > 1)
    (found,) = fitted_diagonals(mass, [pairs / blocks**2], grid, BLOCK)
    assert [round(width * 64 / BLOCK) for width in found.half_widths] == [1, 2, 0]


@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_the_fit_meets_its_density(density: float) -> None:
    grid = TokenGrid(frames=9, height=16, width=16)
    mass = torch.rand(71, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (found,) = fitted_diagonals(mass, [density], grid, 64)
    assert pattern_density(found, grid, 64) == pytest.approx(density, abs=0.06)


def test_fits_contain_the_sparser_ones() -> None:
    grid = TokenGrid(frames=9, height=16, width=16)
    mass = torch.rand(71, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    few, many = fitted_diagonals(mass, [0.2, 0.5], grid, 64)
    kept = pattern_mask([few, many], grid, 64).to_dense()[0]
    assert bool((kept[1] | ~kept[0]).all())
    assert kept[1].sum() > kept[0].sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Diagonal(half_width=-1.0),
        lambda: Diagonal(half_width=float("nan")),
        lambda: Diagonal(half_width=True),
        lambda: MultiDiagonal(half_widths=()),
        lambda: MultiDiagonal(half_widths=(0.1, 0.2), everywhere=True, by_place=True),
        lambda: MultiDiagonal(half_widths=(0.1,), by_place=True),
        lambda: Stripe(columns=()),
        lambda: Stripe(columns=(3, 2)),
        lambda: Stripe(columns=(-1,)),
        lambda: Online(density=0.0),
        lambda: pattern_mask([], TokenGrid(frames=1, height=1, width=8), 8),
    ],
)
def test_what_is_no_pattern_is_refused(make) -> None:
    with pytest.raises(SparseError):
        make()
