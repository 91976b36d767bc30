"""Self-attention under diffusers' Ulysses parallelism: each process has all tokens of some heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.layout import grid_of
from sparsediff.parallel.exchange import collected, model_order, to_heads, to_tokens
from sparsediff.parallel.head_shares import balanced_shares, even_shares
from sparsediff.search.head_share import HeadShare
from sparsediff.session import Session

_RING = (
    "ring attention sees one shard of the keys at a time, a block mask needs all of them; use "
    "ulysses_degree"
)
_ANYTHING = (
    "ulysses_anything gives the processes shards of different length; take a size whose tokens they "
    "divide evenly, and ulysses_anything=False"
)


class Ulysses:
    """The processes that share the heads of a model, and how they divide those of each layer."""

    def __init__(self, group: Any, text: str) -> None:
        self.group = group
        self.text = text
        self.ranks = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self._shares: WeakKeyDictionary[Session, dict[tuple[object, ...], HeadShare]]
        self._shares = WeakKeyDictionary()

    def share(self, session: Session, layer: int, q: Tensor) -> HeadShare:
        """The heads of a layer that this process computes; the same for the whole life of a session."""
        known = self._shares.setdefault(session, {})
        key = (layer, q.shape[2], q.device)
        if key not in known:
            shares = self._divided(session.method.head_costs(layer), q)
            known[key] = HeadShare.of(
                shares, self.rank, q.device, lambda values: collected(values, self.group)
            )
        return known[key]

    def _divided(self, costs: Sequence[Sequence[float]] | None, q: Tensor) -> list[list[int]]:
        """As the first process finds it: rounding may not make two of them differ."""
        heads = q.shape[2]
        fits = costs is not None and len(costs[0]) == heads
        found = balanced_shares(costs or (), self.ranks) if fits else even_shares(heads, self.ranks)
        agreed: list[list[int]] = collected(torch.tensor(found, device=q.device), self.group)[
            0
        ].tolist()
        return agreed

    def streams(self, layout: tuple[int, ...], tokens: int) -> tuple[int, ...]:
        """How many tokens of a sequence are cut among the processes together: text, and the rest."""
        grid = grid_of(layout, tokens)
        if grid is None or self.text == "none":
            return (tokens,)
        if self.text == "first":
            parts = (grid.text_before, tokens - grid.text_before)
        else:
            parts = (tokens - grid.text_after, grid.text_after)
        return parts if all(parts) else (tokens,)


_known: dict[str, Ulysses] = {}


def _joined(config: Any, text: str) -> str:
    group = _context_parallel(config)._ulysses_mesh.get_group()
    name = f"{text}/{group.group_name}"
    known = _known.get(name)
    if known is None or known.group is not group:
        _known[name] = Ulysses(group, text)
    return name


# The name by which `in_shares` knows the processes of a diffusers ParallelConfig and a model with text
# as in ModelFacts; a constant for torch.compile, which cannot follow a mesh to its group.
joined: Callable[[Any, str], str] = torch.compiler.assume_constant_result(_joined)


def refusal(config: Any, q: Tensor, mask: Any) -> str:
    """Why a call ``[b, s, h, d]`` of a parallel model has to run dense; empty when it need not.

    Raises SparseError where diffusers itself could not go on: heads that the processes cannot divide,
    or a diffusers whose configuration is another one.
    """
    found = _context_parallel(config)
    if found.ring_degree > 1:
        return _RING
    if found.ulysses_anything:
        return _ANYTHING
    if mask is not None:
        return "an attention mask under context parallelism"
    if q.shape[2] % found.ulysses_degree:
        raise SparseError(
            f"{q.shape[2]} attention heads cannot be divided among {found.ulysses_degree} processes: "
            f"set ulysses_degree to a divisor of {q.shape[2]}."
        )
    return ""


def _context_parallel(config: Any) -> Any:
    """The part of a ParallelConfig that this file reads, private names included."""
    found = getattr(config, "context_parallel_config", None)
    names = ("ring_degree", "ulysses_degree", "ulysses_anything", "_ulysses_mesh")
    missing = [name for name in names if not hasattr(found, name)]
    if missing:
        import diffusers

        raise SparseError(
            f"diffusers {diffusers.__version__} describes context parallelism otherwise than "
            f"sparsediff expects: {', '.join(missing)} not found in its context_parallel_config. "
            f"Install a version of diffusers that this version of sparsediff supports, or disable "
            f"sparse attention."
        )
    return found


def in_shares(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    session: Session,
    layer: int,
    layout: tuple[int, ...],
    attend: Callable[[Tensor, Tensor, Tensor, HeadShare], Tensor],
) -> Tensor:
    """Compute one call of ``[b, s, heads, d]``, this process's tokens, by the group called `name`.

    `attend` gets ``[b, processes x s, h, d]``: all tokens, in the model's order, of this process's
    heads.
    """
    ulysses = _known[name]
    share, group = ulysses.share(session, layer, q), ulysses.group
    tokens = q.shape[1] * ulysses.ranks
    order = model_order(ulysses.streams(layout, tokens), ulysses.ranks, q.device)
    q, k, v = (to_heads(x, share, group) for x in (q, k, v))
    if order is not None:
        q, k, v = (x.index_select(1, order[0]) for x in (q, k, v))
    out = attend(q, k, v, share)
    if order is not None:
        out = out.index_select(1, order[1])
    return to_tokens(out, share, group)
