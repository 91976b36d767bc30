"""GainTrial: dense and sparse attention and the search timed in turns, in the shape of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from sparsediff.gain.case import GainCase
from sparsediff.gain.times import FILE, JOINED, PROBED, AttentionTimes
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.global_tokens import with_global_tokens
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.turns import Run, Turns, aside, least
from sparsediff.search import AdaSpa, AttentionCall, Step, TokenGrid
from sparsediff.search.arrangement import Arrangement
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.offline.cost_curves import Curve
from sparsediff.search.offline.cost_masks import masks
from sparsediff.search.sampled_probe import Probe
from sparsediff.search.token_order import Permutation

Dense = Callable[[Tensor, Tensor, Tensor], Tensor]

# Short calls fill the time with more rounds: what interrupts them is longer than they are.
MOST_ROUNDS, ENOUGH_ROUNDS = 101, 9
SECONDS = 1.0


class _Silent:
    """Counts nothing: a trial is no part of a run."""

    def ran_dense(self, call: AttentionCall) -> None:
        """A dense call."""

    def ran_sparse(self, call: AttentionCall, mask: BlockMask, backend: str) -> None:
        """A sparse call."""

    def noted(self, text: str) -> None:
        """A note."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GainTrial:
    """A case and one call of the size that is timed, the same random numbers every time."""

    case: GainCase
    call: AttentionCall

    @classmethod
    def of(cls, case: GainCase, dense: Dense) -> GainTrial:
        """`dense` is the user's attention on ``[1, s, h, d]``."""
        return cls(case=case, call=random_call(case, case.timed, dense))

    def _sparse(self, mask: BlockMask) -> Tensor:
        """A new call every time: one that has moved its tokens keeps them."""
        return replace(self.call).sparse(mask, compensate=self.case.compensate)

    def times(self, clock: Callable[[], float] | None = None) -> AttentionTimes:
        """Time every kind of call against the dense call, all in turns; `clock` as in `Turns`."""
        case, call = self.case, self.call
        with torch.no_grad():
            lse = call.lse()
            mass = call.mass(lse, case.block_size)
            search = AdaSpa(block_size=case.block_size)
            curve = masks("online", case.timed)
            probe = Probe(block=case.block_size, samples=max(1, case.block_size // PROBED))
            inputs = AttentionInputs(q=call.q, k=call.k, v=call.v, mask=curve[0], scale=call.scale)
            runs: list[Run] = [
                call.dense,
                call.dense_with_lse,
                lambda: replace(call).mass(lse, case.block_size),
                lambda: search.mask(mass, call.grid),
                lambda: replace(call).probe(probe),
                lambda: with_global_tokens(inputs, call.v, lse, JOINED),
                *(partial(self._sparse, mask) for mask in curve),
            ]
            turns = turns_on(case.device, clock)
            dense, *others = least(turns.rounds(runs))
        with_lse, mass_share, choice, probed, joined, *sparse = (
            seconds / dense for seconds in others
        )
        return AttentionTimes(
            dense_seconds=dense,
            sparse=Curve(points=tuple((m.density, s) for m, s in zip(curve, sparse, strict=True))),
            dense_with_lse=with_lse,
            mass=mass_share,
            choice=choice,
            probe=probed,
            joined=joined,
        )


def trial_tensors(case: GainCase, size: CostCase) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v ``[1, s, h, d]`` of `size`, the same every time."""
    noise = torch.Generator(device=case.device).manual_seed(0)
    shape = (1, size.grid.tokens, size.heads, size.head_dim)
    q, k, v = (
        torch.randn(shape, generator=noise, device=case.device).to(case.dtype) for _ in range(3)
    )
    return q, k, v


def random_call(case: GainCase, size: CostCase, dense: Dense) -> AttentionCall:
    """A call of `size`, which is the case's whole one or the one that is timed."""
    q, k, v = trial_tensors(case, size)
    return AttentionCall(
        q=q,
        k=k,
        v=v,
        grid=size.grid,
        step=Step(index=0),
        layer=0,
        depth=0,
        scale=size.head_dim**-0.5,
        kv_lens=None,
        backend=case.backend,
        user_dense=partial(dense, q, k, v),
        recorder=_Silent(),
        arrangement=_shuffled(case, size.grid) if case.moved else None,
    )


def turns_on(device: torch.device, clock: Callable[[], float] | None = None) -> Turns:
    """About a second of turns."""
    return Turns(
        device=device, most=MOST_ROUNDS, enough=ENOUGH_ROUNDS, seconds=SECONDS, clock=clock
    )


def times_of(case: GainCase, dense: Dense, *, anew: bool = False) -> AttentionTimes:
    """What was measured for such a case on this machine with these versions, or is measured now.

    `anew` measures in any case, and replaces what was kept. Raises BackendError when the case's
    backend cannot run it, and whatever the user's attention or a device without room raises.
    """
    key = case.key(case.timed.kernel())
    known = None if anew else FILE.load().get(key)
    if known is not None:
        return known
    return FILE.save(key, aside(lambda: GainTrial.of(case, dense).times()), replace=anew)


def _shuffled(case: GainCase, grid: TokenGrid) -> Arrangement:
    """Any order moves every token once; which, a gather hardly notices."""
    order = torch.arange(grid.tokens, device=case.device).roll(case.block_size // 2)
    return Arrangement(grid=grid, tokens=Permutation.of(order))
