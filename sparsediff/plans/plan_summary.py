"""A plan in a few figures: for reports, for its model card, and for people."""

from __future__ import annotations

from typing import Any

from sparsediff.plans.evidence import Evidence
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.search import PatternTable


def plan_summary(
    table: PatternTable, fingerprint: Fingerprint, evidence: Evidence
) -> dict[str, Any]:
    """JSON-ready figures: model, sizes, how many heads have each mode, what to expect."""
    return {
        "schema": "sparsediff.plan-summary/1",
        "models": [component.model for component in fingerprint.components],
        "layers": len(table.heads),
        "heads": sum(table.heads),
        "grid": str(table.grid),
        "block_size": table.block_size,
        "starts": list(table.starts),
        "dense_layers": table.dense_layers,
        "compensate": table.compensate,
        "density": table.density,
        "modes": dict(table.modes),
        "scheduler": fingerprint.scheduler,
        "steps": fingerprint.steps,
        "weights": fingerprint.weights,
        "prompts": len(evidence.prompts),
        "seeds": list(evidence.seeds),
        "budget": {evidence.budget: evidence.target} if evidence.budget else None,
        "price": evidence.price,
        "epsilon": evidence.epsilon,
        "cost_source": evidence.cost_source,
        "expected": {
            "density": evidence.density,
            "attention_share": evidence.attention_share,
            "speedup": evidence.speedup,
            "psnr": evidence.psnr,
        },
        "device": evidence.device,
        "dtype": evidence.dtype,
    }


def plan_lines(table: PatternTable, fingerprint: Fingerprint, evidence: Evidence) -> list[str]:
    """The same as a headline and a few aligned lines."""
    models = ", ".join(component.model for component in fingerprint.components)
    parts = len(table.starts)
    dense = f"the first {table.starts[0]:.0%} of the steps dense" if table.starts[0] else ""
    dense += f", the first {table.dense_layers} layers dense" if table.dense_layers else ""
    lines = [
        f"sparse plan: {models}, {table.grid}",
        f"  patterns    {len(table.heads)} layers, {sum(table.heads)} heads, {parts} "
        f"part{'s' if parts > 1 else ''} of the run",
        f"  modes       {', '.join(f'{mode} {count}' for mode, count in table.modes.items())}",
        f"  density     {table.density:.3f} in sparse calls, blocks of {table.block_size}"
        f"{', left-out blocks by their means' if table.compensate else ''}",
        f"  dense       {dense.strip(', ') or 'nothing'}",
        f"  searched    {_origin(fingerprint, evidence)}",
    ]
    expected = expectations(evidence)
    return [*lines, f"  expected    {expected}"] if expected else lines


def expectations(evidence: Evidence) -> str:
    """What a run is expected to do, as far as it was measured; "" when it was not."""
    figures = [
        ("{:.3f} of all block pairs", evidence.density),
        ("{:.0%} of dense attention time", evidence.attention_share),
        ("{:.2f}x as fast", evidence.speedup),
        ("{:.1f} dB PSNR to dense", evidence.psnr),
    ]
    return ", ".join(words.format(value) for words, value in figures if value is not None)


def _origin(fingerprint: Fingerprint, evidence: Evidence) -> str:
    count = len(evidence.prompts)
    parts = [f"on {count} prompt{'s' if count != 1 else ''}" if count else "by hand"]
    if fingerprint.steps:
        parts.append(f"{fingerprint.steps} steps")
    if fingerprint.scheduler:
        parts.append(fingerprint.scheduler)
    if evidence.budget and evidence.target is not None:
        parts.append(f"for {evidence.budget} {evidence.target:g}")
    return ", ".join(parts)
