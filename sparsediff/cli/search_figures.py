"""What `sparsediff search` prints: the plan in a few lines."""

from __future__ import annotations

from math import isfinite

from sparsediff.pattern_search.result import SearchResult


def search_figures(result: SearchResult) -> str:
    """Aligned lines about the plan found, and of what it rests on."""
    choice, evidence, settings = result.choice, result.plan.evidence, result.settings
    entries = sum(result.modes.values())
    modes = ", ".join(f"{mode} {count / entries:.0%}" for mode, count in result.modes.items())
    rows = [
        ("plan", str(result.folder.path)),
        ("budget", f"{settings.budget}" + ("" if result.limit is None else f": {result.limit}")),
        ("prompts", f"{len(result.prompts)} of {len(settings.prompts)}"),
        ("patterns", f"{modes} (of {entries})"),
        ("density", f"{choice.density:.3f} in sparse steps, {evidence.density:.3f} over the run"),
        ("attention time", f"{evidence.attention_share:.3f} of dense, {evidence.cost_source}"),
        ("error", f"{choice.error:.4f} of the output's variance, mean of all heads"),
        ("lambda", f"{choice.price:.4g}, epsilon {choice.epsilon:.4g}"),
    ]
    if evidence.psnr is not None:
        rows.append(("PSNR", f"{evidence.psnr:.2f} dB against dense on the prompts"))
    if evidence.speedup is not None:
        rows.append(("speed", f"{evidence.speedup:.2f} times dense, measured here"))
    if result.probes:
        tried = ", ".join(
            f"{probe.figure:.2f} at {probe.density:.3f}" if isfinite(probe.figure) else "equal"
            for probe in result.probes
        )
        rows.append(("plans run", tried))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {words}" for name, words in rows)
