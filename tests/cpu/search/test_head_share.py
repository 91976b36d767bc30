"""The heads of a layer divided among processes, which threads stand for here."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.search import AdaSpa, PatternTable, PlannedHead, RandomBlocks, SparseVDiT, TokenGrid
from sparsediff.search.head_share import HeadShare
from sparsediff.search.patterns.pattern import Diagonal, Full, Skip

SHARES = ((2, 0), (1, 3))


class Together:
    """Hands every thread what all of them brought."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=30)
        self.brought = [None] * count

    def collect(self, rank):
        def collect(values):
            self.brought[rank] = values
            self.barrier.wait()
            everything = torch.stack(list(self.brought))
            self.barrier.wait()
            return everything

        return collect


def in_shares(work, shares=SHARES):
    """What `work` returns for the share of every process, run at the same time."""
    together = Together(len(shares))
    made = [HeadShare.of(shares, rank, "cpu", together.collect(rank)) for rank in (0, 1)]
    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(work, made))


def test_gather_is_the_order_of_the_model_and_own_is_a_share_of_it():
    values = torch.arange(8.0).view(2, 4)
    whole = in_shares(lambda share: share.gather(values[:, list(share.numbers)]))
    assert all(torch.equal(found, values) for found in whole)
    own = in_shares(lambda share: share.own(values))
    assert [found.tolist() for found in own] == [[[2, 0], [6, 4]], [[1, 3], [5, 7]]]


@pytest.mark.parametrize(
    ("shares", "rank"), [(((0, 1), (2,)), 0), (((0, 1), (1, 2)), 0), (((0,), (1,)), 2)]
)
def test_shares_that_are_none_are_refused(shares, rank):
    with pytest.raises(SparseError, match="every head number from 0 on once"):
        HeadShare.of(shares, rank, "cpu", lambda x: x[None])


def test_budgets_are_decided_over_the_heads_of_all_processes():
    grid, block = TokenGrid(frames=4, height=8, width=8), 16
    method = AdaSpa(density=0.4, block_size=block)
    # Heads 1 and 3 are nearly diagonal, so in one process they give blocks to heads 0 and 2. The
    # second share holds just these two: alone it would take from one to give to the other.
    mass = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    mass[:, [1, 3]] = 1e-4 * mass[:, [1, 3]] + 16 * torch.eye(16)
    whole = method.mask(mass, grid).counts
    assert (whole[:, [1, 3]] < whole[:, [0, 2]]).all()
    parts = in_shares(lambda share: method.mask(mass[:, list(share.numbers)], grid, share).counts)
    for numbers, found in zip(SHARES, parts, strict=True):
        assert torch.equal(found, whole[:, list(numbers)])
    alone = method.mask(mass[:, [1, 3]], grid).counts
    assert not torch.equal(alone, whole[:, [1, 3]])


def test_random_blocks_of_a_head_do_not_depend_on_who_computes_it():
    grid, method = TokenGrid(frames=4, height=8, width=8), RandomBlocks(block_size=16)
    whole = method.mask(grid, 4, 1).to_dense()
    part = method.mask(grid, 4, 1, SHARES[1]).to_dense()
    assert torch.equal(part, whole[:, list(SHARES[1])])
    assert not torch.equal(part[:, 0], part[:, 1])


def test_planned_costs_are_densities_times_how_long_their_bucket_lasts():
    """The buckets last 0.2 and 0.6 of the run."""
    heads = (PlannedHead(pattern=Full()), PlannedHead(pattern=Skip()))
    table = PatternTable(
        grid=TokenGrid(frames=4, height=8, width=8),
        block_size=16,
        starts=(0.2, 0.4),
        buckets=((heads,), (heads[::-1],)),
        density=0.5,
    )
    method = SparseVDiT(table=table)
    first, second = method.head_costs(0)
    assert first == pytest.approx((0.2, 0))
    assert second == pytest.approx((0, 0.6))
    assert method.head_costs(1) is None
    assert AdaSpa().head_costs(0) is None
    narrow = PlannedHead(pattern=Diagonal(half_width=0.01))
    mixed = PatternTable(
        grid=table.grid, block_size=16, starts=(0.0,), buckets=(((*heads, narrow),),), density=0.5
    )
    ((full, skipped, diagonal),) = SparseVDiT(table=mixed).head_costs(0)
    assert skipped == 0 < diagonal < full == 1
