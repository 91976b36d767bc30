"""The choice: from errors and costs of all candidates to the patterns that meet a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.candidates import Row
from sparsediff.search.patterns.pattern import Skip
from sparsediff.search.patterns.pattern_table import Heads, PatternTable, PlannedHead
from sparsediff.search.token_grid import TokenGrid

MOST_SKIPPED = 0.03  # of all heads: the quality of Sparse-vDiT's own ablation falls fast beyond it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerChoices:
    """Everything known of one layer: ``rows[bucket][candidate]``, and float64 ``[s, c, h]`` figures.

    ``errors`` mean over calls and prompts, ``costs`` shares of the dense call's time, ``densities``.
    """

    rows: tuple[tuple[Row, ...], ...]
    errors: Tensor
    costs: Tensor
    densities: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """One candidate per bucket, layer and head: ``picks[layer]`` int64 ``[s, h]``.

    ``price`` is the paper's lambda, an error per unit of cost, and ``epsilon`` its bound: a head stays
    full when every other candidate's loss is above it. ``density``, ``cost`` and ``error`` are means
    over the calls of a run.
    """

    picks: tuple[Tensor, ...]
    price: float
    density: float
    cost: float
    error: float
    epsilon: float


class Chooser:
    """Chooses for any price or density, from figures that stay as they are.

    ``steps``: how many steps of a run each bucket has, which is how much it counts. At most
    MOST_SKIPPED of all heads are skipped. Raises SparseError when no bucket has a step.
    """

    def __init__(self, layers: Sequence[LayerChoices], steps: Sequence[int]) -> None:
        if sum(steps) == 0:
            raise SparseError("No step of the run is sparse: lower warmup or take more steps.")
        self.layers = layers
        self.weights = torch.tensor(steps, dtype=torch.float64) / sum(steps)

    def at_price(self, price: float) -> Choice:
        """The candidates of least error + `price` x cost (Sparse-vDiT §2.2)."""
        picks = [(layer.errors + price * layer.costs).argmin(dim=1) for layer in self.layers]
        return self._measured(self._with_few_skipped(picks, price), price)

    def at_density(self, density: float) -> Choice:
        """The cheapest price at which the plan is no denser than asked, by bisection.

        When even the cheapest candidates are denser, those.
        """
        low, high = 1e-9, 1e6
        best = self.at_price(high)
        if best.density > density:
            return best
        for _ in range(80):
            middle = (low * high) ** 0.5
            found = self.at_price(middle)
            if found.density <= density:
                high, best = middle, found
            else:
                low = middle
        return best

    def table(
        self,
        choice: Choice,
        grid: TokenGrid,
        block: int,
        starts: Sequence[float],
        *,
        compensate: bool = False,
    ) -> PatternTable:
        """The patterns of a choice, each with its error; `compensate` as they were tried."""
        buckets = tuple(
            tuple(
                self._heads(layer, bucket, picks[bucket])
                for layer, picks in zip(self.layers, choice.picks, strict=True)
            )
            for bucket in range(len(starts))
        )
        return PatternTable(
            grid=grid,
            block_size=block,
            starts=tuple(starts),
            buckets=buckets,
            density=choice.density,
            compensate=compensate,
        )

    @staticmethod
    def _heads(layer: LayerChoices, bucket: int, picks: Tensor) -> Heads:
        return tuple(
            PlannedHead(
                pattern=layer.rows[bucket][pick][head],
                error=round(float(layer.errors[bucket, pick, head]), 6),
            )
            for head, pick in enumerate(picks.tolist())
        )

    def _measured(self, picks: list[Tensor], price: float) -> Choice:
        def mean(figures: Sequence[Tensor]) -> float:
            taken = [
                figure.gather(1, pick[:, None])[:, 0]
                for figure, pick in zip(figures, picks, strict=True)
            ]
            figures_by_bucket = torch.cat(taken, dim=1).mean(dim=1)
            return float((self.weights * figures_by_bucket).sum())

        return Choice(
            picks=tuple(picks),
            price=price,
            # Weights that sum to 1 do so with a rounding error; nobody asks for more digits.
            density=min(1.0, round(mean([layer.densities for layer in self.layers]), 6)),
            cost=mean([layer.costs for layer in self.layers]),
            error=mean([layer.errors for layer in self.layers]),
            epsilon=price * max(float(layer.costs[:, 0].max()) for layer in self.layers),
        )

    def _with_few_skipped(self, picks: list[Tensor], price: float) -> list[Tensor]:
        """The same picks with only the least harmful skips kept."""
        found = [
            (float(layer.errors[bucket, pick, head]), number, bucket, head)
            for number, (layer, chosen) in enumerate(zip(self.layers, picks, strict=True))
            for bucket, row in enumerate(chosen.tolist())
            for head, pick in enumerate(row)
            if isinstance(layer.rows[bucket][pick][head], Skip)
        ]
        allowed = int(MOST_SKIPPED * sum(pick.numel() for pick in picks))
        for _, number, bucket, head in sorted(found)[allowed:]:
            layer = self.layers[number]
            loss = (layer.errors + price * layer.costs)[bucket, :, head].clone()
            for candidate, row in enumerate(layer.rows[bucket]):
                if isinstance(row[head], Skip):
                    loss[candidate] = torch.inf
            picks[number][bucket, head] = loss.argmin()
        return picks
