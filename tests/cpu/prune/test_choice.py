"""Masks from scores: exact numbers, the best stay, and what cannot be is refused."""

from __future__ import annotations

from math import floor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.choice import choose
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Structure


def layers(kind: Any, *sizes: int) -> list[Structure]:
    return [Structure(kind=kind, path=f"b.{n}", units=units) for n, units in enumerate(sizes)]


def chosen(structures: list[Structure], values: list[list[float]], **how: Any) -> list[list[int]]:
    """The units that stay, layer by layer; ``shifts`` are those of the scores."""
    pairs = zip(structures, values, strict=True)
    shifts = {one.key: s for one, s in zip(structures, how.pop("shifts", ()), strict=False)}
    scores = Scores(values={one.key: torch.tensor(v) for one, v in pairs}, shifts=shifts)
    masks = choose(scores, structures, **how)
    masks.check(structures)
    return [masks.kept[one.key].nonzero().flatten().tolist() for one in structures]


TWO = layers("heads", 4, 4)
VALUES = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]


def test_by_hand() -> None:
    assert chosen(TWO, VALUES, ratio=0.5) == [[3], [1, 2, 3]]  # one of each layer stays
    assert chosen(TWO, VALUES, ratio=0.5, least=0) == [[], [0, 1, 2, 3]]
    assert chosen(TWO, VALUES, ratio=0.5, scope="layer") == [[2, 3], [2, 3]]
    assert chosen(TWO, VALUES, ratio=0.0) == [[0, 1, 2, 3]] * 2
    assert chosen(TWO, VALUES, ratio=1.0, least=0) == [[], []]
    assert chosen(TWO, VALUES, ratio=0.5, heads_multiple_of=2) == [[2, 3], [2, 3]]
    # 5 of 8 would stay: 6 is as near as 4 and keeps more; the pair 1 + 2 goes.
    assert chosen(TWO, VALUES, ratio=0.375, heads_multiple_of=2) == [[2, 3], [0, 1, 2, 3]]


def test_equal_scores_go_from_the_end() -> None:
    assert chosen(TWO, [[1.0] * 4] * 2, ratio=0.25) == [[0, 1, 2, 3], [0, 1]]
    assert chosen(TWO, [[1.0] * 4] * 2, ratio=0.375, scope="layer") == [[0, 1, 2], [0, 1]]


def test_rest_of_a_layered_choice_goes_to_the_better_unit() -> None:
    """Three heads stay in one of three alike layers: the one whose third head matters most."""
    values = [[9.0, 8.0, 1.0], [9.0, 8.0, 3.0], [9.0, 8.0, 2.0]]
    kept = chosen(layers("heads", 3, 3, 3), values, ratio=2 / 9, scope="layer")
    assert kept == [[0, 1], [0, 1, 2], [0, 1]]


def test_shifts_move_the_layers_shares() -> None:
    ten = layers("ffn", 10, 10)
    values = [[float(n) for n in range(10)]] * 2
    kept = chosen(ten, values, ratio=0.5, scope="layer", shifts=(0.2, -0.2))
    assert [len(k) for k in kept] == [7, 3]
    with pytest.raises(SparseError, match="use 'layer'"):
        chosen(ten, values, ratio=0.5, shifts=(0.2, -0.2))


def test_every_kind_on_its_own() -> None:
    mixed = [*layers("heads", 2), *layers("ffn", 4)]
    kept = chosen(mixed, [[100.0, 200.0], [1.0, 2.0, 3.0, 4.0]], ratio=0.5)
    assert kept == [[1], [2, 3]]
    kept = chosen(mixed, [[100.0, 200.0], [1.0, 2.0, 3.0, 4.0]], ratio={"ffn": 0.25})
    assert kept == [[0, 1], [1, 2, 3]]


@pytest.mark.parametrize("scope", ["kind", "layer"])
def test_blocks_are_one_layer(scope: str) -> None:
    blocks = layers("blocks", 1, 1, 1)
    assert chosen(blocks, [[3.0], [1.0], [2.0]], ratio=1 / 3, scope=scope) == [[0], [], [0]]
    with pytest.raises(SparseError, match="least=0 lets whole layers go"):
        chosen(blocks, [[3.0], [1.0], [2.0]], ratio=1.0, scope=scope)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"ratio": 0.9}, "leaves 1 of 8, but 2 layers keep at least 2"),
        ({"ratio": 1.1}, r"in \[0, 1\]"),
        ({"ratio": float("nan")}, r"in \[0, 1\]"),
        ({"ratio": 0.5, "scope": "model"}, "one of kind, layer"),
        ({"ratio": 0.5, "least": -1}, "least=-1"),
        ({"ratio": 0.5, "heads_multiple_of": 0}, "heads_multiple_of=0"),
        ({"ratio": 0.5, "heads_multiple_of": 5}, "too few"),
        ({"ratio": 0.1, "heads_multiple_of": 5, "least": 0}, r"keep 0 at most. Raise .* to 1\.00"),
        ({"ratio": {"head": 0.5}}, "'head' is none of heads, ffn, blocks"),
    ],
)
def test_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(SparseError, match=message):
        chosen(TWO, VALUES, **how)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(SparseError, match=r"heads/b\.0.* 1 of 4 values that are not finite"):
        chosen(TWO, [[1.0, bad, 2.0, 3.0], VALUES[1]], ratio=0.5)


def test_scores_of_another_model_are_refused() -> None:
    scores = Scores(values={TWO[0].key: torch.ones(3)})
    with pytest.raises(SparseError, match=r"heads/b\.0 has 4 units and 3 scores"):
        choose(scores, TWO, ratio=0.5)
    with pytest.raises(SparseError, match=r"heads/b\.1 has 2 units and none scores"):
        choose(scores, [*layers("heads", 3, 2)], ratio=0.5)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    ratio=st.floats(0, 1),
    scope=st.sampled_from(["kind", "layer"]),
    multiple=st.integers(1, 3),
    least=st.integers(0, 2),
    seed=st.integers(0, 2**16),
    levels=st.integers(1, 5),  # few levels: many equal scores
)
def test_numbers_are_exact(
    sizes: list[int], ratio: float, scope: Any, multiple: int, least: int, seed: int, levels: int
) -> None:
    structures = layers("heads", *sizes)
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randint(levels, (n,), generator=generator).float() for n in sizes]
    scores = Scores(values={one.key: v for one, v in zip(structures, values, strict=True)})
    how: Any = {"ratio": ratio, "scope": scope, "heads_multiple_of": multiple, "least": least}
    fewest = [-(-least // multiple) * multiple for _ in sizes]
    most = [n - n % multiple for n in sizes]
    units = sum(sizes)
    wanted = units - floor(units * ratio + 0.5)
    possible = all(f <= m for f, m in zip(fewest, most, strict=True))
    if not possible or sum(fewest) - wanted >= multiple or wanted - sum(most) >= multiple:
        with pytest.raises(SparseError):
            choose(scores, structures, **how)
        return
    kept = [choose(scores, structures, **how).kept[one.key] for one in structures]
    counts = [int(stay.sum()) for stay in kept]
    assert all(count % multiple == 0 for count in counts)
    assert all(f <= c <= m for f, c, m in zip(fewest, counts, most, strict=True))
    nearest = multiple * floor(wanted / multiple + 0.5)
    assert sum(counts) == min(max(nearest, sum(fewest)), sum(most))
    for stay, value in zip(kept, values, strict=True):  # in a layer none that goes is better
        if bool(stay.any()) and not bool(stay.all()):
            assert float(value[stay].min()) >= float(value[~stay].max())
    if scope == "layer" and len(set(sizes)) == 1:  # alike layers keep alike
        assert max(counts) - min(counts) <= multiple


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_over_a_kind_the_best_stay(sizes: list[int], ratio: float, seed: int) -> None:
    structures = layers("ffn", *sizes)
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed)).float()
    values = order.split(sizes)
    scores = Scores(values={one.key: v for one, v in zip(structures, values, strict=True)})
    kept = choose(scores, structures, ratio=ratio, least=0)
    stay = torch.cat([kept.kept[one.key] for one in structures])
    assert order[stay].sum() == order.sort(descending=True).values[: int(stay.sum())].sum()
