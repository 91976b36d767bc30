"""Prediction: how long attention will take in a sparse run, in units of the dense run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsediff.gain.case import GainCase
from sparsediff.gain.times import JOINED, PROBED, AttentionTimes
from sparsediff.search import Method

BREAK_EVEN = 1.0
# Of a run whose length nobody knows, such as a model called by hand: the paper's.
USUAL_STEPS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What sparse attention is worth at one length.

    ``ratio`` time of self-attention in the whole run, search included, over that of a dense run of
    ``steps``; ``sparse_ratio`` one sparse call over one dense call; ``search_share`` the part of
    ``ratio`` that finds the patterns. ``density`` of a sparse call, text included; ``dense_seconds`` of
    one dense call. ``case`` says in words what was timed.
    """

    tokens: int
    density: float
    steps: int
    ratio: float
    sparse_ratio: float
    search_share: float
    dense_seconds: float
    case: str

    @property
    def pays(self) -> bool:
        """Whether the run is to be sparse."""
        return self.ratio < BREAK_EVEN

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values, ``pays`` among them."""
        return {
            "tokens": self.tokens,
            "density": self.density,
            "steps": self.steps,
            "ratio": self.ratio,
            "sparse_ratio": self.sparse_ratio,
            "search_share": self.search_share,
            "dense_seconds": self.dense_seconds,
            "pays": self.pays,
            "case": self.case,
        }

    def figures(self) -> str:
        """The prediction as half a sentence."""
        return (
            f"attention over {self.tokens:,} tokens at density {self.density:.2f} is predicted to take "
            f"{self.ratio:.2f} of dense attention's time"
        )

    def reason(self) -> str:
        """Why the calls run dense, and what to do; empty where sparse attention pays."""
        if self.pays:
            return ""
        return (
            f"{self.figures()} in {self.steps} steps, so it does not pay here; generate at a larger "
            f"size, lower the density, take more steps, or enable with gate=False"
        )


def predict(
    case: GainCase, times: AttentionTimes, method: Method, *, density: float, steps: int | None
) -> Prediction:
    """Measured times and what `method` computes in a run of `steps` (None: nobody knows) together.

    `density` of a sparse call as `Method.computed_density` gives it.
    """
    total = steps or USUAL_STEPS
    work = method.work(total)
    search = times.mass / getattr(method, "query_stride", 1) + times.choice
    sparse = times.sparse.at(density)
    searching = work.searches * search + work.dense_with_lse * times.dense_with_lse
    searching += work.probes * (work.probed * PROBED**2 * times.probe + times.choice)
    sparse += work.pooled * JOINED * times.joined
    spent = work.dense + work.sparse * sparse + searching
    replaced = total - work.dense - work.sparse  # dense calls that also gave the LSE
    return Prediction(
        tokens=case.tokens,
        density=density,
        steps=total,
        ratio=spent / total,
        sparse_ratio=sparse,
        search_share=(searching - replaced) / total,
        dense_seconds=times.dense_seconds * case.scale,
        case=case.words(),
    )
