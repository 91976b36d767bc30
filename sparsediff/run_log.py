"""RunLog: what every attention call of a run did, kept small and read only for a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.parallel.head_shares import Shares, even_shares, imbalance
from sparsediff.report import RunReport
from sparsediff.search.head_share import HeadShare


@dataclass(slots=True)
class RunLog:
    """Counts and densities of one run.

    A mask's density stays a tensor on its device until somebody asks, so that counting never makes a
    GPU wait. ``calls`` holds (step, layer, density per head or None for a dense call); ``shares`` how
    processes divide the heads of each layer.
    """

    calls: list[tuple[int, int, Tensor | None]] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter)
    backends: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    masks: dict[int, BlockMask] = field(default_factory=dict)
    shares: dict[int, Shares] = field(default_factory=dict)
    _latest: dict[tuple[int, str], tuple[BlockMask, Tensor]] = field(default_factory=dict)

    def dense(self, step: int, layer: int) -> None:
        """A call ran dense."""
        self.calls.append((step, layer, None))

    def sparse(
        self,
        step: int,
        layer: int,
        branch: str,
        mask: BlockMask,
        backend: str,
        *,
        share: HeadShare | None = None,
    ) -> None:
        """A call of a guidance branch ran over `mask`, whose heads are those of `share`."""
        known = self._latest.get((layer, branch))
        if known is None or known[0] is not mask:
            known = (mask, mask.head_density.mean(dim=0))
            self._latest[layer, branch] = known
        density = known[1]
        if share is not None:
            # A report is about all heads, whichever process makes it. Others may have a new mask when
            # this one has not, so they meet at every call.
            self.shares[layer] = share.shares
            density = share.gather(density.expand(1, len(share.numbers)))[0]
        self.calls.append((step, layer, density))
        self.backends[backend] += 1
        self.masks[layer] = mask

    def settle(self) -> None:
        """The run is over: what is left to read moves off the GPU."""
        self._latest.clear()
        self.masks = {layer: mask.to("cpu") for layer, mask in self.masks.items()}

    def report(
        self,
        *,
        method: dict[str, object],
        names: list[str],
        predictions: Sequence[dict[str, Any]] = (),
    ) -> RunReport:
        """Everything the run did, as plain numbers; `predictions` are the gate's."""
        # Calls share the tensor of their mask, so each is read once. Six decimals are what float32
        # holds of a share.
        shares = {
            id(density): [round(share, 6) for share in density.tolist()]
            for density in {id(d): d for _, _, d in self.calls if d is not None}.values()
        }
        values = [None if d is None else shares[id(d)] for _, _, d in self.calls]
        means = [1.0 if v is None else sum(v) / len(v) for v in values]
        sparse = [mean for mean, value in zip(means, values, strict=True) if value is not None]
        return RunReport(
            density=_mean(means, 1.0),
            sparse_density=_mean(sparse, 1.0),
            sparse_calls=len(sparse),
            dense_calls=len(means) - len(sparse),
            fallbacks=dict(self.fallbacks),
            method=method,
            backends=dict(self.backends),
            steps=self._by_step(means, values),
            layers=self._by_layer(values, names),
            notes=list(self.notes),
            predictions=list(predictions),
            balance=self._balance(values),
        )

    def _balance(self, values: list[list[float] | None]) -> dict[str, float]:
        """How evenly the processes were loaded; nothing when there was one."""
        calls = [
            (value, self.shares[layer])
            for (_, layer, _), value in zip(self.calls, values, strict=True)
            if value is not None and layer in self.shares
        ]
        if not calls:
            return {}
        in_order = [(value, even_shares(len(value), len(shares))) for value, shares in calls]
        return {
            "processes": len(calls[0][1]),
            "in_order": round(imbalance(in_order), 6),
            "as_divided": round(imbalance(calls), 6),
        }

    def _by_step(
        self, means: list[float], values: list[list[float] | None]
    ) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for step in sorted({step for step, _, _ in self.calls}):
            picked = [i for i, call in enumerate(self.calls) if call[0] == step]
            sparse = sum(values[i] is not None for i in picked)
            rows.append(
                {
                    "step": step,
                    "density": _mean([means[i] for i in picked], 1.0),
                    "sparse_calls": sparse,
                    "dense_calls": len(picked) - sparse,
                }
            )
        return rows

    def _by_layer(
        self, values: list[list[float] | None], names: list[str]
    ) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for layer in sorted({layer for _, layer, _ in self.calls}):
            heads = [
                value
                for (_, at, _), value in zip(self.calls, values, strict=True)
                if at == layer and value is not None
            ]
            # A mask that all heads share has one entry, which stands for each of them.
            width = max((len(value) for value in heads), default=0)
            wide = [value * width if len(value) == 1 else value for value in heads]
            shown = [round(_mean(list(head), 1.0), 6) for head in zip(*wide, strict=True)]
            rows.append(
                {
                    "layer": layer,
                    "name": names[layer],
                    "density": _mean(shown, 1.0),
                    "heads": shown,
                }
            )
        return rows


def _mean(values: list[float], empty: float) -> float:
    return sum(values) / len(values) if values else empty
