"""Which heads each process computes: equally many, and with about the same cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shares = tuple[tuple[int, ...], ...]


def even_shares(heads: int, ranks: int) -> Shares:
    """The heads in the model's order, cut into `ranks` equal parts; `ranks` divides `heads`."""
    size = heads // ranks
    return tuple(tuple(range(rank * size, (rank + 1) * size)) for rank in range(ranks))


def balanced_shares(costs: Sequence[Sequence[float]], ranks: int) -> Shares:
    """One division for the whole run, in whose parts the heads cost ``costs[part][head]``.

    The dearest head that is left goes to the cheapest share that has room (longest processing time
    first); then two heads change places as long as that makes `waited` less. No worse than the model's
    own order, which it is where nothing is gained.
    """
    even = even_shares(len(costs[0]), ranks)
    found = min(
        (_settled(costs, shares) for shares in (even, _dearest_first(costs, ranks))), key=_least
    )
    return found[1] if found[0] < waited(costs, even) * (1 - 1e-9) else even


def waited(costs: Sequence[Sequence[float]], shares: Shares) -> float:
    """What the dearest share costs, over the parts of a run: the others wait for it in each."""
    return sum(max(sum(part[head] for head in share) for share in shares) for part in costs)


def imbalance(calls: Sequence[tuple[Sequence[float], Shares]]) -> float:
    """Cost of the dearest share over the mean one's, in a run of (costs, shares) calls; 1 is best.

    The processes meet after every call, so it is the dearest share of each that counts.
    """
    mean = sum(sum(costs) / len(shares) for costs, shares in calls)
    return sum(waited([costs], shares) for costs, shares in calls) / mean if mean else 1.0


def _least(found: tuple[float, Shares]) -> float:
    return found[0]


def _dearest_first(costs: Sequence[Sequence[float]], ranks: int) -> Shares:
    total = [sum(part) for part in zip(*costs, strict=True)]
    size = len(total) // ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    spent = [0.0] * ranks
    for head in sorted(range(len(total)), key=lambda number: -total[number]):
        rank = min((r for r in range(ranks) if len(shares[r]) < size), key=lambda r: spent[r])
        shares[rank].append(head)
        spent[rank] += total[head]
    return tuple(tuple(share) for share in shares)


def _settled(costs: Sequence[Sequence[float]], shares: Shares) -> tuple[float, Shares]:
    """The shares after every exchange of two heads that helps, the best first; and what they cost."""
    cost = torch.tensor(costs, dtype=torch.float64)
    member = torch.zeros(cost.shape[1], len(shares), dtype=torch.float64)
    for rank, share in enumerate(shares):
        member[list(share), rank] = 1
    now = float((cost @ member).amax(dim=1).sum())
    while True:
        after = _after_exchange(cost, member)
        best = int(after.argmin())
        if float(after.view(-1)[best]) >= now * (1 - 1e-9):
            break
        now = float(after.view(-1)[best])
        one, other = divmod(best, len(after))
        member[[one, other]] = member[[other, one]]
    owner = member.argmax(dim=1).tolist()
    found = tuple(
        tuple(head for head, rank in enumerate(owner) if rank == number)
        for number in range(len(shares))
    )
    return now, found


def _after_exchange(cost: Tensor, member: Tensor) -> Tensor:
    """`waited` with heads i and j exchanged, ``[h, h]``; cost ``[parts, h]``, member ``[h, ranks]``."""
    gained = cost[:, None, :] - cost[:, :, None]  # what the share of i pays more with j
    moved = member[:, None] - member[None, :]
    loads = (cost @ member)[:, None, None] + gained[..., None] * moved
    return loads.amax(dim=-1).sum(dim=0)
