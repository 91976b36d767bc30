"""RunLog: what every attention call of a run did, kept small and read only for a report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.report import RunReport


@dataclass(slots=True)
class RunLog:
    """Counts and densities of one run.

    A mask's density stays a tensor on its device until somebody asks, so that counting never makes a
    GPU wait. ``calls`` holds (step, layer, density per head or None for a dense call).
    """

    calls: list[tuple[int, int, Tensor | None]] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter)
    backends: Counter[str] = field(default_factory=Counter)
    masks: dict[int, BlockMask] = field(default_factory=dict)
    _densities: dict[int, tuple[BlockMask, Tensor]] = field(default_factory=dict)

    def dense(self, step: int, layer: int) -> None:
        """A call ran dense."""
        self.calls.append((step, layer, None))

    def sparse(self, step: int, layer: int, mask: BlockMask, backend: str) -> None:
        """A call ran over `mask`."""
        known = self._densities.get(layer)
        if known is None or known[0] is not mask:
            known = (mask, mask.head_density.mean(dim=0))
            self._densities[layer] = known
        self.calls.append((step, layer, known[1]))
        self.backends[backend] += 1
        self.masks[layer] = mask

    def report(self, *, method: dict[str, object], names: list[str]) -> RunReport:
        """Everything the run did, as plain numbers."""
        # Six decimals are what float32 holds of a share.
        values = [
            None if d is None else [round(share, 6) for share in d.tolist()]
            for _, _, d in self.calls
        ]
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
        )

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
            # One entry for a mask that all heads share, else one for each head.
            shown = [round(_mean(list(head), 1.0), 6) for head in zip(*heads, strict=True)]
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
