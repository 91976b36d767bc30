"""What a search writes into its plan: where it comes from, and what to expect."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from sparsediff.pattern_search.budget_search import Outcome
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.plans.evidence import Evidence
from sparsediff.search.offline.cost import Cost


def evidence_of(
    settings: SearchSettings,
    outcome: Outcome,
    *,
    prompts: Sequence[int],
    dense_share: float,
    cost: Cost,
    device: str,
) -> Evidence:
    """The evidence of a plan that rests on these prompts; `dense_share` of the steps are warm-up."""
    budget, choice, psnr = settings.budget, outcome.choice, outcome.psnr
    command = settings.command
    return Evidence(
        model=_public(settings.model),
        prompts=tuple(settings.prompts[prompt] for prompt in prompts),
        seeds=tuple(settings.seed + prompt for prompt in prompts),
        budget=budget.kind,
        target=budget.value,
        price=choice.price,
        epsilon=choice.epsilon,
        cost_source=cost.source,
        density=min(1.0, dense_share + (1 - dense_share) * choice.density),
        attention_share=dense_share + (1 - dense_share) * choice.cost,
        speedup=outcome.speedup,
        psnr=psnr if psnr is not None and isfinite(psnr) else None,
        device=device,
        dtype=settings.dtype,
        versions=dict(settings.versions),
        command=None if command is None else f"{command} --{budget.kind} {budget.value:g}",
    )


def _public(model: str) -> str:
    """The model's name, without the folders of this machine."""
    path = Path(model).expanduser()
    return path.name if path.is_absolute() else model
