"""Heads and tokens divided among processes, without any process."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsediff.kernels.errors import SparseError
from sparsediff.parallel import ulysses
from sparsediff.parallel.exchange import model_order
from sparsediff.parallel.head_shares import balanced_shares, even_shares, imbalance, waited
from sparsediff.parallel.ulysses import Ulysses, refusal


class Knowing:
    """A session whose method knows what the heads of every layer cost."""

    def __init__(self, costs):
        self.method = SimpleNamespace(head_costs=lambda layer: costs)


def test_even_shares_are_the_models_order_cut():
    assert even_shares(6, 3) == ((0, 1), (2, 3), (4, 5))


@given(
    st.integers(1, 4).flatmap(
        lambda ranks: st.tuples(
            st.just(ranks),
            st.integers(1, 4).flatmap(
                lambda size: st.lists(st.floats(0, 1), min_size=ranks * size, max_size=ranks * size)
            ),
        )
    )
)
def test_balanced_shares_hold_every_head_once_and_are_never_worse(drawn):
    ranks, costs = drawn
    parts = [costs, costs[::-1]]
    shares = balanced_shares(parts, ranks)
    assert len(shares) == ranks
    assert {len(share) for share in shares} == {len(costs) // ranks}
    assert sorted(itertools.chain(*shares)) == list(range(len(costs)))
    assert waited(parts, shares) <= waited(parts, even_shares(len(costs), ranks))


def test_dear_heads_are_spread():
    costs = [[1, 1, 0.1, 0.2]]
    assert waited(costs, even_shares(4, 2)) == 2
    assert waited(costs, balanced_shares(costs, 2)) == 1.2
    assert balanced_shares([[0.5] * 4], 2) == even_shares(4, 2)


def test_one_division_serves_all_parts_of_the_run():
    """Over the run all heads cost the same; heads 0 and 1 cost it in the first part, 2 and 3 later."""
    costs = [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert waited(costs, even_shares(4, 2)) == 4
    assert waited(costs, balanced_shares(costs, 2)) == 2


def test_heads_that_the_first_rule_places_badly_change_places():
    """The dearest first gives 7 + 4 + 3 and 6 + 5 + 1; 7 + 5 + 1 and 6 + 4 + 3 are even."""
    costs = [[7, 6, 5, 4, 3, 1]]
    best = min(
        waited(costs, (share, tuple(set(range(6)) - set(share))))
        for share in itertools.combinations(range(6), 3)
    )
    assert waited(costs, balanced_shares(costs, 2)) == best


def test_a_method_without_known_costs_keeps_the_models_order(monkeypatch):
    """HeadShare of AdaSpa: its budgets are found while it runs."""
    monkeypatch.setattr(ulysses, "collected", lambda values, group: values[None])
    q = torch.zeros(1, 8, 4, 2)
    group = Ulysses.__new__(Ulysses)
    group.group, group.text, group.ranks, group.rank = None, "none", 2, 1
    group._shares = {}
    session = Knowing(None)
    share = group.share(session, 0, q)
    assert share.shares == ((0, 1), (2, 3))
    assert share.numbers == (2, 3)
    assert group.share(session, 0, q) is share
    costs = ((1.0, 1.0, 0.0, 0.0),)
    assert waited(costs, group.share(Knowing(costs), 0, q).shares) == 1
    assert group.share(Knowing(((1.0, 0.0),)), 0, q).shares == share.shares  # another model's plan


def test_imbalance_counts_the_dearest_of_every_call():
    """Two calls of mean 1, whose busiest process computes 2 and 1."""
    order = even_shares(2, 2)
    assert imbalance([([2.0, 0.0], order), ([1.0, 1.0], order)]) == 1.5
    assert imbalance([]) == imbalance([([0.0, 0.0], order)]) == 1


@pytest.mark.parametrize("streams", [(4, 12), (12, 4), (16,)])
@pytest.mark.parametrize("ranks", [2, 4])
def test_text_and_video_cut_apart_come_back_together(streams, ranks):
    """The model cuts each stream; what arrives process by process is put into the model's order."""
    parts = torch.arange(16).split(streams)
    cut = [part.chunk(ranks) for part in parts]
    arrived = torch.cat([piece[rank] for rank in range(ranks) for piece in cut])
    found = model_order(streams, ranks, torch.device("cpu"))
    if found is None:
        assert len(streams) == 1
        assert torch.equal(arrived, torch.arange(16))
        return
    order, back = found
    assert torch.equal(arrived[order], torch.arange(16))
    assert torch.equal(torch.arange(16)[back], arrived)


def test_streams_that_cannot_be_cut_evenly_are_refused():
    with pytest.raises(SparseError, match="5 and 11 tokens cannot be divided evenly among 2"):
        model_order((5, 11), 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "layout", "streams"),
    [
        ("first", (1, 4, 8, 16, 0), (16, 32)),
        ("first", (1, 4, 4, 16, 16), (16, 32)),  # reference images are cut with the image
        ("last", (2, 4, 4, 0, 16), (32, 16)),
        ("none", (2, 4, 4, 16, 0), (48,)),  # conditioning frames are cut with the video
        ("first", (1, 6, 8, 0, 0), (48,)),
        ("first", (1, 5, 5, 0, 0), (48,)),  # no grid: it will run dense
    ],
)
def test_streams_follow_from_where_the_text_is(text, layout, streams):
    group = Ulysses.__new__(Ulysses)
    group.text = text
    assert group.streams(layout, 48) == streams


def test_another_diffusers_is_one_clear_error():
    config = SimpleNamespace(context_parallel_config=SimpleNamespace(ring_degree=1))
    with pytest.raises(
        SparseError, match="ulysses_degree, ulysses_anything, _ulysses_mesh not found"
    ):
        refusal(config, torch.zeros(1, 8, 4, 2), None)
