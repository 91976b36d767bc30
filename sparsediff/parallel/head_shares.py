"""Which heads each process computes: equally many, and with about the same cost."""

from __future__ import annotations

from collections.abc import Sequence

Shares = tuple[tuple[int, ...], ...]


def even_shares(heads: int, ranks: int) -> Shares:
    """The heads in the model's order, cut into `ranks` equal parts; `ranks` divides `heads`."""
    size = heads // ranks
    return tuple(tuple(range(rank * size, (rank + 1) * size)) for rank in range(ranks))


def balanced_shares(costs: Sequence[float], ranks: int) -> Shares:
    """Shares whose dearest is as cheap as the rule of the longest first makes it.

    The dearest head that is left goes to the cheapest share that has room. The model's own order where
    that is no better. Every process computes the same shares from the same costs.
    """
    size = len(costs) // ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    spent = [0.0] * ranks
    for head in sorted(range(len(costs)), key=lambda number: -costs[number]):
        rank = min((r for r in range(ranks) if len(shares[r]) < size), key=lambda r: spent[r])
        shares[rank].append(head)
        spent[rank] += costs[head]
    found = tuple(tuple(sorted(share)) for share in shares)
    even = even_shares(len(costs), ranks)
    return found if dearest(costs, found) < dearest(costs, even) else even


def dearest(costs: Sequence[float], shares: Shares) -> float:
    """What the dearest share costs: the others wait for it."""
    return max(sum(costs[head] for head in share) for share in shares)


def imbalance(calls: Sequence[tuple[Sequence[float], Shares]]) -> float:
    """Cost of the dearest share over the mean one's, in a run of (costs, shares) calls; 1 is best.

    The processes meet after every call, so it is the dearest share of each that counts.
    """
    mean = sum(sum(costs) / len(shares) for costs, shares in calls)
    return sum(dearest(costs, shares) for costs, shares in calls) / mean if mean else 1.0
