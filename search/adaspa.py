"""AdaSpa: LSE-cached online search of head-adaptive block patterns (arXiv 2502.21079)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.mass import check_stride
from sparsediff.search.call import AttentionCall
from sparsediff.search.head_share import HeadShare
from sparsediff.search.method import Memory, Method
from sparsediff.search.run_work import RunWork, searched
from sparsediff.search.schedule import Schedule
from sparsediff.search.selection import (
    RankedBlocks,
    budget_change,
    head_budgets,
    keys_per_row,
    video_mask,
)
from sparsediff.search.token_grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaSpa(Method):
    """Search the pattern of every head while generating; nothing to prepare.

    The first ``warmup`` of the steps run dense. The last of them also yields the exact log-sum-exp
    of every query row, and with it the attention mass of every block pair; each row keeps its
    heaviest key blocks. At every later ``refresh`` mark the mass is measured again with the cached
    LSE (one pass over q k^T instead of two) and the same step already runs with the new pattern.
    Defaults are the paper's: steps 10 and 30 of 50, density 0.2, blocks of 64.

    ``head_budgets``: heads whose pattern holds more than ``recall_threshold`` of the mass give half of
    their blocks to the heads that hold least (paper §1.5). ``query_stride``: a search that looks at
    every n-th query of a block only, at 1 / n of its cost (not in the paper; 1 for parity). With
    warmup=0 the first call searches first and already runs sparse.
    """

    name: ClassVar[str] = "adaspa"

    warmup: float = 0.2
    refresh: tuple[float, ...] = (0.6,)
    head_budgets: bool = True
    recall_threshold: float = 0.8
    query_stride: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.refresh, list):  # JSON has no tuples
            object.__setattr__(self, "refresh", tuple(self.refresh))
        Method.__post_init__(self)
        if not isinstance(self.head_budgets, bool):
            raise SparseError(f"head_budgets={self.head_budgets!r}: needs True or False.")
        check_stride(self.query_stride, self.block_size)
        if not 0 < self.recall_threshold < 1:
            raise SparseError(
                f"recall_threshold={self.recall_threshold!r}: needs a share of the attention mass "
                f"in (0, 1), such as 0.8."
            )

    @property
    def schedule(self) -> Schedule:
        """Dense steps and the marks at which the pattern is searched again."""
        return Schedule(warmup=self.warmup, refresh=self.refresh, dense_layers=self.dense_layers)

    def work(self, steps: int) -> RunWork:
        """Adds the search at the end of the dense steps and those at the refresh marks."""
        return searched(self.schedule, steps)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense, search, refresh or reuse, by the schedule."""
        schedule = self.schedule
        if schedule.is_dense(call.step, call.depth):
            if call.depth < self.dense_layers or not schedule.is_last_dense(call.step):
                return call.dense()
            out, lse = call.dense_with_lse()
            self._search(call, memory, lse)
            return out
        if memory.mask is None:  # no dense step was seen: warmup=0, a skipped step, unknown total
            self._search(call, memory, call.lse())
        elif schedule.marks(call.step) > memory.marks and memory.lse is not None:
            self._search(call, memory, memory.lse)
        if memory.mask is None:
            raise SparseError("AdaSpa has no pattern after a search; please report this.")
        return call.sparse(memory.mask, compensate=self.compensate)

    def _search(self, call: AttentionCall, memory: Memory, lse: Tensor) -> None:
        mass = call.mass(lse, self.block_size, query_stride=self.query_stride)
        memory.mask = self.mask(mass, call.grid, call.share)
        memory.marks = self.schedule.marks(call.step)
        memory.lse = lse if self.refresh and memory.marks < len(self.refresh) else None

    def mask(self, mass: Tensor, grid: TokenGrid, share: HeadShare | None = None) -> BlockMask:
        """The pattern for a measured block mass ``[b, h, m, n]`` (paper §1.5-1.6).

        With `share`, the mass is that of a part of the heads; budgets are decided over all of them.
        """
        columns = grid.video_blocks(self.block_size)
        if not self.head_budgets or columns == 0:
            return video_mask(mass, self.density, grid, self.block_size)
        keep = keys_per_row(self.density, columns)
        most = keep + budget_change(keep, columns)
        ranked = RankedBlocks.of(mass, most, grid, self.block_size)
        recall = ranked.recall(mass, keep)
        if share is not None:
            recall = share.gather(recall)
        budgets = head_budgets(recall, keep, columns, self.recall_threshold)
        return ranked.mask(budgets if share is None else share.own(budgets))
