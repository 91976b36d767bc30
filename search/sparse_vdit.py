"""SparseVDiT: fixed patterns per head from an offline search (arXiv 2506.03065), executed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from sparsediff.kernels.errors import PlanMismatchError, SparseError
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.patterns.head_costs import head_costs
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Stripe,
)
from sparsediff.search.patterns.pattern_mask import video_density
from sparsediff.search.patterns.pattern_table import PatternTable, PlannedHead
from sparsediff.search.patterns.planned_layer import PlannedLayer
from sparsediff.search.run_work import RunWork, scheduled, searched
from sparsediff.search.schedule import Schedule, Step
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import RASTER


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseVDiT(Method):
    """Every head computes the pattern that an offline search found for it in this part of the run.

    All heads of a layer run in one launch, whatever their patterns. ``density``, ``block_size``,
    ``warmup``, ``dense_layers`` and ``compensate`` are the table's. On another token grid than the
    table's, ``strict`` is an error; without it widths are carried over, and stripes, which name blocks
    of one grid, run full; so do widths in frames where there is one frame only. ``online_above``:
    heads whose error in the search is above it are searched while generating, as AdaSpa does and at
    their pattern's density, again at every ``refresh`` mark (not in the paper).

    Raises SparseError for options that contradict the table.
    """

    name: ClassVar[str] = "sparse-vdit"

    table: PatternTable = field(repr=False)
    strict: bool = True
    online_above: float | None = None
    refresh: tuple[float, ...] = (0.6,)
    density: float = -1.0
    block_size: int = -1
    warmup: float = -1.0
    dense_layers: int = -1
    compensate: bool = None  # type: ignore[assignment]  # the table's

    def __post_init__(self) -> None:
        if not isinstance(self.table, PatternTable):
            raise SparseError(
                f"table={type(self.table).__name__}: needs a PatternTable; a plan's is plan.table."
            )
        for name in ("density", "block_size", "warmup", "dense_layers"):
            value, planned = getattr(self, name), getattr(self.table, name)
            if value not in (-1, planned):
                raise SparseError(
                    f"{name}={value!r}: this plan was searched for {name}={planned:g}. Leave it out, "
                    f"or search a plan for it."
                )
            object.__setattr__(self, name, planned)
        if self.compensate is None:
            object.__setattr__(self, "compensate", self.table.compensate)
        if isinstance(self.refresh, list):
            object.__setattr__(self, "refresh", tuple(self.refresh))
        Method.__post_init__(self)
        if self.token_order != RASTER:
            raise SparseError(
                f"token_order={self.token_order!r}: the patterns of a plan are in terms of the model's "
                f"own order of tokens. Leave it out, or use a method that searches while generating, "
                f"such as AdaSpa."
            )
        if not isinstance(self.strict, bool):
            raise SparseError(f"strict={self.strict!r}: needs True or False.")
        above = self.online_above
        if above is not None and not (_is_number(above) and above >= 0):
            raise SparseError(
                f"online_above={above!r}: needs an error >= 0 (a share of the output's variance), "
                f"or None."
            )

    @property
    def schedule(self) -> Schedule:
        """Dense steps of the table and the marks at which online heads are searched again."""
        return Schedule(warmup=self.warmup, refresh=self.refresh, dense_layers=self.dense_layers)

    def work(self, steps: int) -> RunWork:
        """Adds the searches of heads that are online, in every bucket and at every mark."""
        share = self._online_share
        if not share:
            return scheduled(self.schedule, steps)
        found = searched(self.schedule, steps, self.table.bucket)
        return replace(found, searches=share * found.searches)

    def computed_density(self, grid: TokenGrid) -> float:
        """That of the table: a plan counts its text."""
        return self.density

    @property
    def _online_share(self) -> float:
        """Share of the table's heads that are searched while generating."""
        heads = [head for bucket in self.table.buckets for layer in bucket for head in layer]
        online = sum(self._is_online(head) for head in heads)
        return online / len(heads)

    def _is_online(self, head: PlannedHead) -> bool:
        """Whether a head is searched while generating: planned so, or its error was too large."""
        if isinstance(head.pattern, Full | Online):
            return isinstance(head.pattern, Online)
        bound = self.online_above
        return bound is not None and head.error is not None and head.error > bound

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else the patterns of the step's bucket."""
        self._check_grid(call, memory)
        schedule = self.schedule
        if schedule.is_dense(call.step, call.depth):
            if call.depth < self.dense_layers or not schedule.is_last_dense(call.step):
                return call.dense()
            return self._last_dense(call, memory)
        bucket = self.table.bucket(call.step)
        return self._layer(bucket, call, memory).run(
            call,
            memory,
            bucket=bucket,
            marks=schedule.marks(call.step),
            compensate=self.compensate,
        )

    def head_costs(self, layer: int) -> tuple[tuple[float, ...], ...] | None:
        """Of each bucket; None for a layer that is not in the plan."""
        return head_costs(self.table, layer) if layer < len(self.table.heads) else None

    def _last_dense(self, call: AttentionCall, memory: Memory) -> Tensor:
        """The last dense step also searches the heads that will be online in the first bucket."""
        first = Step(index=call.step.index + 1, total=call.step.total)
        bucket = self.table.bucket(first)
        online = self._layer(bucket, call, memory).online
        if online is None:
            return call.dense()
        out, memory.lse = call.dense_with_lse()
        online.search(call, memory, bucket, self.schedule.marks(call.step))
        return out

    def _layer(self, bucket: int, call: AttentionCall, memory: Memory) -> PlannedLayer:
        """Made once for all guidance branches of a layer and kept for a bucket."""
        key = (bucket, call.grid, call.q.device, call.heads)
        known: tuple[object, PlannedLayer] | None = memory.layer.get("planned")
        if known is None or known[0] != key:
            patterns = self._patterns(bucket, call)
            layer = PlannedLayer.of(patterns, call.grid, self.block_size, call.q.device)
            known = memory.layer["planned"] = (key, layer)
        return known[1]

    def _patterns(self, bucket: int, call: AttentionCall) -> list[Pattern]:
        """The patterns of the call's heads on its grid."""
        other = call.grid != self.table.grid
        same_unit = _unit(call.grid) == _unit(self.table.grid)
        patterns: list[Pattern] = []
        planned = self.table.buckets[bucket][call.layer]
        for head in (planned[number] for number in call.heads):
            pattern = head.pattern
            widths = isinstance(pattern, Diagonal | MultiDiagonal)
            if other and (isinstance(pattern, Stripe) or (widths and not same_unit)):
                pattern = Full()
            if self._is_online(head):
                pattern = self._online(pattern, call)
            patterns.append(pattern)
        return patterns

    def _online(self, pattern: Pattern, call: AttentionCall) -> Pattern:
        if isinstance(pattern, Full | Online):
            return pattern
        share = video_density(pattern, call.grid, self.block_size)
        return Online(density=max(share, 1e-6))

    def _check_grid(self, call: AttentionCall, memory: Memory) -> None:
        if memory.extra.get("checked") == call.grid:
            return
        memory.extra["checked"] = call.grid
        table = self.table
        if len(table.buckets[0]) <= call.layer:
            raise PlanMismatchError(
                f"This plan has {len(table.buckets[0])} layers; layer {call.layer} is not in it."
            )
        planned, found = table.heads[call.layer], call.layer_heads
        if planned != found:
            raise PlanMismatchError(
                f"This plan has {planned} heads in layer {call.layer}; the model has {found}."
            )
        if call.grid == table.grid:
            return
        if self.strict:
            raise PlanMismatchError(
                f"This plan was searched for {table.grid}; this run has {call.grid}. Generate at the "
                f"plan's size, search a plan for this one, or pass strict=False (--no-strict) to carry "
                f"the patterns over."
            )
        if call.layer == 0:
            mine, theirs = _unit(table.grid), _unit(call.grid)
            words = f"; so do widths, which count {mine}s and not {theirs}s"
            call.recorder.noted(
                f"plan carried over from {table.grid} to {call.grid}; {table.stripes} of "
                f"{table.entries} patterns are stripes, which run full on another grid"
                + (words if mine != theirs else "")
            )

    def to_dict(self) -> dict[str, Any]:
        """Name, options and the share of every mode, for reports; not the table."""
        return {
            "name": self.name,
            "density": self.density,
            "block_size": self.block_size,
            "warmup": self.warmup,
            "dense_layers": self.dense_layers,
            "compensate": self.compensate,
            "strict": self.strict,
            "online_above": self.online_above,
            "refresh": list(self.refresh),
            "grid": str(self.table.grid),
            "starts": list(self.table.starts),
            "modes": self.table.modes,
        }


def _unit(grid: TokenGrid) -> str:
    """What a period of `periods` is, which widths count."""
    if grid.frames > 1:
        return "frame"
    return "row" if grid.height > 1 else "sequence"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
