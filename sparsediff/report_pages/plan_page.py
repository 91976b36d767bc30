"""The page of a plan: its map, its heads, what other plans would have cost, and where it is from."""

from __future__ import annotations

from html import escape
from typing import Any

from sparsediff.plan_report import PlanReport
from sparsediff.report_pages import sections
from sparsediff.report_pages.document import document
from sparsediff.report_pages.head_maps import head_maps
from sparsediff.report_pages.mode_map import mode_map
from sparsediff.report_pages.pareto import pareto_chart
from sparsediff.report_pages.scrolled import scrolled

FRAMES = "sparsediff generate {model} --plan DIR --compare --output DIR"


def plan_page(report: PlanReport) -> str:
    """The page as text; no address in it leads outside of it."""
    return document(
        title=report.name,
        subtitle=_subtitle(report),
        parts=[
            _headline(report),
            _modes(report),
            _pareto(report),
            _frames(report),
            _heads(report),
            _evidence(report),
            _missing(report),
        ],
        data=report.to_dict(),
        styles=["plan.css"],
    )


def _subtitle(report: PlanReport) -> str:
    plan = report.plan
    models = ", ".join(component.model for component in plan.fingerprint.components)
    words = [models, str(plan.table.grid), f"blocks of {plan.table.block_size} tokens"]
    if plan.fingerprint.steps:
        words.append(f"{plan.fingerprint.steps} steps")
    return ", ".join(words)


def _headline(report: PlanReport) -> str:
    table, evidence = report.plan.table, report.plan.evidence
    cells = [("density, sparse calls", f"{table.density:.3f}")]
    if evidence.attention_share is not None:
        cells.append(("attention time, run", f"{evidence.attention_share:.0%}"))
    if evidence.speedup is not None:
        cells.append(("speed-up", f"{evidence.speedup:.2f}x"))
    if evidence.psnr is not None:
        cells.append(("PSNR", f"{evidence.psnr:.1f} dB"))
    cells.append(("heads", str(sum(table.heads))))
    cells.append(("prompts", str(len(evidence.prompts)) if evidence.prompts else "unknown"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="headline">{items}</dl>'


def _modes(report: PlanReport) -> str:
    table = report.plan.table
    intro = "The pattern of every head; each cell says more when pointed at."
    if table.starts[0] > 0:
        intro += f" The first {table.starts[0]:.0%} of the steps run dense."
    if table.dense_layers:
        intro += f" The first {table.dense_layers} layers of each model run dense."
    return sections.section("Modes", intro, mode_map(report))


def _pareto(report: PlanReport) -> str:
    if report.sweep is None:
        return ""
    intro = (
        "Mean error of all heads against what they cost, for plans at other prices (lambda). "
        '<span class="swatch" style="background:var(--accent)"></span> best pattern for every head, '
        '<span class="swatch" style="background:var(--muted)"></span> one kind of pattern at one '
        "density for all heads."
    )
    source = report.plan.evidence.cost_source
    if source:
        intro += f" Costs: {escape(source)}."
    chart = scrolled(pareto_chart(report.sweep), label="Chart of error against cost")
    return sections.section("Error against cost", intro, chart)


def _frames(report: PlanReport) -> str:
    videos = report.videos
    if videos is None:
        return ""
    views = {"dense": videos.dense}
    intro = f"From {escape(videos.source)}."
    if videos.planned is not None:
        views["plan"] = videos.planned
    else:
        command = FRAMES.format(model=report.plan.evidence.model or "MODEL")
        intro += (
            f" To see the plan's beside them: <code>{escape(command)}</code>, then report again."
        )
    return sections.section("Frames", intro, sections.frame_rows(views))


def _heads(report: PlanReport) -> str:
    if report.profile is None:
        return ""
    intro = (
        "Left where the head's attention lies, the mean over the prompts with text included (the root "
        "of the mass, so that weak places show); right the pattern that was chosen for it. Down: "
        "queries, across: keys, both in token order. Below each: number of the head, mode, density "
        "and error."
    )
    return sections.section("Attention and pattern of every head", intro, head_maps(report))


def _evidence(report: PlanReport) -> str:
    plan, evidence = report.plan, report.plan.evidence
    facts: dict[str, Any] = {
        "model": evidence.model,
        "budget": f"{evidence.budget} {evidence.target:g}" if evidence.target else None,
        "budget met": _met(report),
        "lambda, epsilon": _two(evidence.price, evidence.epsilon),
        "costs": evidence.cost_source,
        "density of a whole run": _figure(evidence.density),
        "compensation": "searched with mean keys and values for blocks left out"
        if plan.table.compensate
        else None,
        "scheduler": plan.fingerprint.scheduler,
        "device": evidence.device,
        "dtype": evidence.dtype,
        "versions": ", ".join(f"{name} {version}" for name, version in evidence.versions.items()),
        "weights": plan.fingerprint.weights,
    }
    body = sections.pairs({name: value for name, value in facts.items() if value})
    if evidence.command:
        body = f"<pre>{escape(evidence.command)}</pre>{body}"
    if evidence.prompts:
        seeds = [str(seed) for seed in evidence.seeds] + [""] * len(evidence.prompts)
        rows = [(seed, prompt) for seed, prompt in zip(seeds, evidence.prompts, strict=False)]
        body += "<h3>Calibration</h3>" + sections.table(("seed", "prompt"), rows)
    return sections.section("How it was found", "", body + _probes(report))


def _probes(report: PlanReport) -> str:
    probes = (report.search or {}).get("probes") or []
    rows = [(f"{p['density']:.3f}", _figure(p["figure"]) or "equal to dense", "") for p in probes]
    if not rows:
        return ""
    return "<h3>Plans run for the budget</h3>" + sections.table(("density", "figure", ""), rows)


def _met(report: PlanReport) -> str | None:
    if report.search is None:
        return None
    limit = report.search.get("limit")
    return "yes" if limit is None else f"no: {limit}"


def _missing(report: PlanReport) -> str:
    if not report.missing:
        return ""
    items = "".join(f"<li>{escape(words)}</li>" for words in report.missing)
    intro = "The plan itself is whole; these parts of its search are not at hand."
    return sections.section("Not shown", intro, f'<ul class="missing">{items}</ul>')


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _two(first: float | None, second: float | None) -> str | None:
    return None if first is None or second is None else f"{first:.4g}, {second:.4g}"
