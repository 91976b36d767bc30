"""TrueMass: the exact attention mass at every step, the ceiling of mass-based selection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from sparsediff.search.adaspa import AdaSpa
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory
from sparsediff.search.run_work import RunWork, scheduled


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMass(AdaSpa):
    """AdaSpa with the pattern searched anew, from the exact LSE, at every sparse call.

    Slower than dense attention: it answers what a perfect, always fresh search would be worth.
    """

    name: ClassVar[str] = "true-mass"

    refresh: tuple[float, ...] = ()
    head_budgets: bool = False

    def work(self, steps: int) -> RunWork:
        """Adds the log-sum-exp and the search of every sparse call."""
        plain = scheduled(self.schedule, steps)
        return replace(plain, dense_with_lse=plain.sparse, searches=plain.sparse)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else search and compute."""
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        mass = call.mass(call.lse(), self.block_size, query_stride=self.query_stride)
        memory.mask = self.mask(mass, call.grid, call.share)
        return call.sparse(memory.mask, compensate=self.compensate)
