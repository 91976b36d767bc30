"""TokenGrid and Schedule: bijection, bounds, and the paper's own numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsediff.kernels import SparseError
from sparsediff.search import METHODS, Schedule, Step, TokenGrid

sizes = st.integers(1, 6)
texts = st.integers(0, 9)


@given(sizes, sizes, sizes, texts, texts)
def test_index_and_position_are_inverse(f: int, h: int, w: int, before: int, after: int) -> None:
    grid = TokenGrid(frames=f, height=h, width=w, text_before=before, text_after=after)
    seen = set()
    for token in range(grid.tokens):
        place = grid.position(token)
        if place is None:
            assert token < before or token >= before + grid.video_tokens
        else:
            assert grid.index(*place) == token
            seen.add(place)
    assert len(seen) == grid.video_tokens == grid.tokens - grid.text_tokens


@given(sizes, sizes, sizes, texts, texts, st.integers(1, 20))
def test_text_blocks_are_exactly_those_with_text(
    f: int, h: int, w: int, before: int, after: int, block: int
) -> None:
    grid = TokenGrid(frames=f, height=h, width=w, text_before=before, text_after=after)
    flags = grid.text_blocks(block).tolist()
    for number, flag in enumerate(flags):
        tokens = range(number * block, min((number + 1) * block, grid.tokens))
        assert flag == any(grid.position(token) is None for token in tokens)


@pytest.mark.parametrize(
    "bad", [{"frames": 0}, {"width": 2.0}, {"height": True}, {"text_after": -1}]
)
def test_grid_refuses(bad: dict[str, object]) -> None:
    with pytest.raises(SparseError, match=next(iter(bad))):
        TokenGrid(**({"frames": 1, "height": 1, "width": 1} | bad))


def test_schedule_is_the_papers() -> None:
    """AdaSpa §1.3: T_s = {10, 30} of 50, counted from 1; the first ends the warm-up."""
    schedule = METHODS["adaspa"]().schedule
    steps = [Step(index=i, total=50, progress=i / 50) for i in range(50)]
    dense = [s.index + 1 for s in steps if schedule.is_dense(s, depth=0)]
    assert dense == list(range(1, 11))
    assert [s.index + 1 for s in steps if schedule.is_last_dense(s)] == [10]
    marks = [schedule.marks(s) for s in steps]
    assert marks.index(1) + 1 == 30


@given(st.floats(0, 0.99), st.integers(1, 200))
def test_dense_steps(warmup: float, total: int) -> None:
    schedule = Schedule(warmup=warmup)
    steps = [Step(index=i, total=total, progress=i / total) for i in range(total)]
    dense = [schedule.is_dense(step, depth=3) for step in steps]
    assert dense == sorted(dense, reverse=True), "dense steps come first"
    assert (sum(dense) > 0) == (warmup > 0)
    assert abs(sum(dense) - warmup * total) <= 1
    assert sum(schedule.is_last_dense(step) for step in steps) == (1 if warmup > 0 else 0)


def test_schedule_without_a_total_follows_the_noise() -> None:
    schedule = Schedule(warmup=0.2, refresh=(0.6,), dense_layers=1)
    assert schedule.is_dense(Step(index=7, progress=0.1), depth=1)
    assert not schedule.is_dense(Step(index=1, progress=0.3), depth=1)
    assert schedule.is_dense(Step(index=1, progress=0.3), depth=0)
    assert [schedule.marks(Step(index=0, progress=p)) for p in (0.5, 0.7)] == [0, 1]
    assert not schedule.is_last_dense(Step(index=1, progress=0.19))
