"""RunReport: what ran sparse in the last run, at what density, what fell back and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """Facts of the last run of an enabled model.

    ``density`` share of block pairs computed over all self-attention calls, a dense call counting 1;
    ``sparse_density`` the same over sparse calls only (1 when there was none). ``fallbacks`` counts
    calls that were to run sparse and could not, by reason; they are part of ``dense_calls``.
    ``steps`` and ``layers`` break the figures down; ``heads`` is the mean density of each head in
    sparse calls (one entry when all heads share a mask). ``notes`` what else the method has to say,
    such as that a plan was carried over to another grid. ``balance``, where several ``processes``
    divide the heads: what the busiest of them computes in sparse calls over the mean, with the heads
    ``in_order`` and ``as_divided``; 1 is best. ``predictions``: what the gate expected of every
    shape (`gain.prediction.Prediction`); none where it was off or could not know.
    """

    density: float = 1.0
    sparse_density: float = 1.0
    sparse_calls: int = 0
    dense_calls: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    method: dict[str, object] = field(default_factory=dict)
    backends: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, object]] = field(default_factory=list)
    layers: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    balance: dict[str, float] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def gated(self) -> bool:
        """Whether the gate kept calls dense because sparse attention would not have paid."""
        return not all(found["pays"] for found in self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"schema": "sparsediff.report/1", **asdict(self)}

    def __str__(self) -> str:
        calls = self.sparse_calls + self.dense_calls
        lines = [
            f"sparse attention: {self.method.get('name', '?')}, {self.sparse_calls} of {calls} "
            f"self-attention calls ran sparse",
            f"  density     {self.density:.3f} over the run, {self.sparse_density:.3f} in sparse calls",
            f"  kernels     {_counts(self.backends) or 'none'}",
            f"  fallbacks   {'' if self.fallbacks else 'none'}".rstrip(),
        ]
        lines += [f"    {count} x {reason}" for reason, count in self.fallbacks.items()]
        if self.balance:
            lines.append(
                f"  processes   {self.balance['processes']:.0f}, the busiest computes "
                f"{self.balance['as_divided']:.3f} times the mean, {self.balance['in_order']:.3f} with "
                f"the heads in order"
            )
        lines += [f"  gate        {_decision(found)}" for found in self.predictions]
        lines += [f"  note        {note}" for note in self.notes]
        if not calls:
            lines.append("  nothing has run since sparse attention was enabled")
        return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return "; ".join(f"{name}: {count}" for name, count in counts.items())


def _decision(found: dict[str, Any]) -> str:
    """One prediction of the gate and what it decided, in a line."""
    return (
        f"{found['tokens']:,} tokens: attention predicted to take {found['ratio']:.2f} of dense "
        f"attention's time, so {'sparse' if found['pays'] else 'dense'}"
    )
