"""CostTrial: dense attention, each kind of pattern and a search pass, timed in turns on this device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels import block_mass, block_sparse_attention
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.dense import dense_attention_lse
from sparsediff.kernels.ranked_call import device_name
from sparsediff.kernels.turns import Run, Turns, shares
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.offline.cost_curves import KINDS, CostCurves, Curve
from sparsediff.search.offline.cost_masks import masks
from sparsediff.search.patterns.token_reorder import by_place

# Operations of the dense call that is timed, by device type: tens of milliseconds each.
OPERATIONS = {"cpu": 2.5e9, "cuda": 1.5e13}
MOST_ROUNDS, ENOUGH_ROUNDS = 11, 3
# After these seconds no round begins once there are enough; after twice as many none at all.
SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CostTrial:
    """The tensors of a case, made small enough to be timed within seconds.

    ``case`` has one batch item, as many heads as the limit allows and, where one head is still too
    much, fewer periods; ``kernel`` names the backend.
    """

    case: CostCase
    kernel: str
    q: Tensor
    k: Tensor
    v: Tensor

    @classmethod
    def of(cls, case: CostCase, kernel: str) -> CostTrial:
        """The same tensors every time; the device must have room for a few of them."""
        case = case.within(OPERATIONS[case.device.type])
        noise = torch.Generator(device=case.device).manual_seed(0)
        shape = (1, case.grid.tokens, case.heads, case.head_dim)
        q, k, v = (
            torch.randn(shape, generator=noise, device=case.device).to(case.dtype) for _ in range(3)
        )
        return cls(case=case, kernel=kernel, q=q, k=k, v=v)

    def curves(self) -> CostCurves:
        """Time everything in turns, forwards and backwards, against the dense call of the same turn."""
        with torch.no_grad():
            lse = dense_attention_lse(self.q, self.k, self.v)[1]
            contestants = [
                (kind, mask.density, self._call(mask, reordered=kind.endswith("by place")))
                for kind in KINDS
                for mask in masks(kind, self.case)
            ]
            contestants.append(("search", 1.0, lambda: self._mass(lse)))
            shares = self._shares([run for *_, run in contestants])
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in (*KINDS, "search")}
        for (kind, density, _), share in zip(contestants, shares, strict=True):
            found[kind].append((density, share))
        search_pass = found.pop("search")[0][1]
        words = f"{device_name(self.case.device)}: {self.case.words(self.kernel)}"
        curves = {kind: Curve(points=tuple(points)) for kind, points in found.items()}
        return CostCurves(curves=curves, search_pass=search_pass, words=words)

    def _shares(self, runs: list[Run]) -> list[float]:
        """Median over the rounds of each run's time over that of the round's dense call."""
        turns = Turns(
            device=self.case.device, most=MOST_ROUNDS, enough=ENOUGH_ROUNDS, seconds=SECONDS
        )
        return shares(turns.rounds([self._dense, *runs]))[1:]

    def _dense(self) -> object:
        return dense_attention_lse(self.q, self.k, self.v)

    def _mass(self, lse: Tensor) -> object:
        return block_mass(self.q, self.k, lse, block_size=self.case.block_size)

    def _call(self, mask: BlockMask, *, reordered: bool) -> Run:
        def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return block_sparse_attention(q, k, v, mask, backend=self.kernel)

        if not reordered:
            return lambda: plain(self.q, self.k, self.v)
        order = by_place(self.case.grid, self.case.device)
        back = order.argsort()
        tensors = (self.q, self.k, self.v)
        return lambda: plain(*(x.index_select(1, order) for x in tensors)).index_select(1, back)
