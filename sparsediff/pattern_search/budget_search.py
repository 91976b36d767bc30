"""BudgetSearch: the choice that meets a budget, with runs where only runs can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sparsediff.pattern_search import probes
from sparsediff.pattern_search.probing import Probe, Target
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.units import Statistics
from sparsediff.pattern_search.work import Work
from sparsediff.search import PatternTable, SparseVDiT, TokenGrid
from sparsediff.search.offline.choice import Choice, Chooser
from sparsediff.timed_run import Runner

_TINY = 1e-9  # a density that no plan has: the cheapest is chosen


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """The choice for a budget and its ``table``; ``limit`` says why the budget is not met, if so.

    ``psnr`` in dB and ``speedup`` over dense where they were measured; ``probes`` in their order.
    """

    choice: Choice
    table: PatternTable
    limit: str | None = None
    psnr: float | None = None
    speedup: float | None = None
    probes: tuple[Probe, ...] = ()


class BudgetSearch:
    """Finds the choice for the budget in `settings`; ``prompts`` those that have been tried."""

    def __init__(
        self,
        *,
        work: Work,
        settings: SearchSettings,
        chooser: Chooser,
        grid: TokenGrid,
        prompts: Sequence[int],
        runner_for: Callable[[int], Runner],
    ) -> None:
        self.work = work
        self.settings = settings
        self.chooser = chooser
        self.grid = grid
        self.prompts = list(prompts)
        self.runner_for = runner_for

    def outcome(self) -> Outcome:
        """What meets the budget, else what comes nearest, never nothing; its PSNR if time permits."""
        budget = self.settings.budget
        kinds = {
            "density": self._for_density,
            "psnr": self._for_psnr,
            "speedup": self._for_speedup,
        }
        found = kinds[budget.kind](budget.value)
        if found.psnr is not None or found.choice.density == 1:
            return found
        return replace(found, psnr=self._psnr(found.choice))

    @cached_property
    def cheapest(self) -> Choice:
        """The choice of least cost."""
        return self.chooser.at_density(_TINY)

    def _for_density(self, density: float) -> Outcome:
        choice = self.chooser.at_density(density)
        limit = None
        if choice.density > density:
            limit = (
                f"no plan has a density of {density:g}: the cheapest patterns of every head, chosen "
                f"here, have {choice.density:.3f}"
            )
        return Outcome(choice=choice, table=self._table(choice), limit=limit)

    def _for_psnr(self, value: float) -> Outcome:
        target = Target(value=value, rising=True, least=self.cheapest.density)
        found, cut_off = self._probed(target, self._psnr)
        best = target.best(found)
        if best is None:
            dense = self.chooser.at_price(0.0)
            nearest = max(found, key=lambda probe: probe.figure, default=None)
            words = "no plan was run in time"
            if nearest is not None:
                words = f"the best that was run has {nearest.figure:.2f} dB"
            return Outcome(
                choice=dense,
                table=self._table(dense),
                limit=f"only full attention has {value:g} dB for sure: {words}",
                probes=tuple(found),
            )
        return self._at(best, found, cut_off, psnr=best.figure)

    def _for_speedup(self, value: float) -> Outcome:
        target = Target(value=value, rising=False, least=self.cheapest.density)
        found, cut_off = self._probed(target, self._speedup)
        best = target.best(found)
        if best is not None:
            return self._at(best, found, cut_off, speedup=best.figure)
        nearest = max(found, key=lambda probe: probe.figure, default=None)
        limit = f"no plan was run in time, so {value:g} times dense is not known to be met"
        if nearest is not None:
            limit = (
                f"no plan is {value:g} times as fast as dense: the fastest, chosen here, is "
                f"{nearest.figure:.2f} times as fast, with a density of {nearest.density:.3f}"
            )
        choice = self.cheapest if nearest is None else self.chooser.at_density(nearest.density)
        return Outcome(
            choice=choice,
            table=self._table(choice),
            limit=limit,
            speedup=None if nearest is None else nearest.figure,
            probes=tuple(found),
        )

    def _at(
        self,
        best: Probe,
        found: Sequence[Probe],
        cut_off: bool,
        *,
        psnr: float | None = None,
        speedup: float | None = None,
    ) -> Outcome:
        choice = self.chooser.at_density(best.density)
        return Outcome(
            choice=choice,
            table=self._table(choice),
            limit="the time was up: a better plan may meet the budget too" if cut_off else None,
            psnr=psnr,
            speedup=speedup,
            probes=tuple(found),
        )

    def _probed(
        self, target: Target, figure: Callable[[Choice], float | None]
    ) -> tuple[list[Probe], bool]:
        """All probes, and whether the time was up before the last one."""
        found: list[Probe] = []
        while (density := target.next(found, self.settings.options.density)) is not None:
            value = figure(self.chooser.at_density(density))
            if value is None:
                return found, True
            found.append(Probe(density=density, figure=value))
        return found, False

    def _psnr(self, choice: Choice) -> float | None:
        method, stage = self._method(choice), probes.stage_of("psnr", self._table(choice))
        prompts = [prompt for prompt in self.prompts if prompt < probes.PROMPTS]
        if not prompts:
            return None  # the time was up before one whose dense video was kept

        def compute(prompt: int) -> Statistics:
            return probes.psnr_probe(
                self.runner_for(prompt),
                self.work.units,
                prompt,
                method,
                self.settings.backend,
                keep_frames=prompt == prompts[0],
            )

        done = self.work.run(stage, prompts, compute)
        return probes.mean_psnr(self.work.units, stage, prompts) if done == prompts else None

    def _speedup(self, choice: Choice) -> float | None:
        method, stage = self._method(choice), probes.stage_of("speedup", self._table(choice))
        first = self.prompts[0]

        def compute(prompt: int) -> Statistics:
            return probes.speed_probe(self.runner_for(prompt), method, self.settings.backend)

        if not self.work.run(stage, [first], compute):
            return None
        return probes.speedup(self.work.units, stage, first)

    def _method(self, choice: Choice) -> SparseVDiT:
        return SparseVDiT(table=self._table(choice))

    def _table(self, choice: Choice) -> PatternTable:
        options = self.settings.options
        return self.chooser.table(
            choice,
            self.grid,
            options.block_size,
            options.starts,
            compensate=options.compensate,
        )
