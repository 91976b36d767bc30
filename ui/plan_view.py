"""What a plan is, as a part of the page: figures, density and patterns of every head."""

from __future__ import annotations

from html import escape
from typing import Any

from sparsediff.plan_report import PlanReport, steps_of
from sparsediff.plans import PatternPlan
from sparsediff.report_pages import sections
from sparsediff.report_pages.charts import density_table
from sparsediff.report_pages.mode_map import mode_map
from sparsediff.ui.figures import figure_list
from sparsediff.ui.own_plans import NamedPlan

_NOTHING = "A plan that is searched or uploaded here is shown head by head."
_DASH = "\N{EN DASH}"


def plan_view(named: NamedPlan | None) -> str:
    """Every text is escaped here."""
    if named is None:
        return f'<div class="sd-look"><p class="sd-nothing">{escape(_NOTHING)}</p></div>'
    report = PlanReport(name=named.name, plan=named.plan)
    parts = [
        f'<h2 class="sd-plan">{escape(named.name)}</h2>',
        _figures(named.plan),
        sections.section(
            "Density per layer and head",
            "Mean over the sparse steps of a run; a stronger tint computes more.",
            density_table(_layers(report)),
        ),
        sections.section("Patterns", escape(_run_words(named.plan)), mode_map(report)),
    ]
    return f'<div class="sd-look">{"".join(parts)}</div>'


def _figures(plan: PatternPlan) -> str:
    found = plan.evidence
    cells = (
        ("density", f"{plan.table.density:.3f}", "of sparse steps"),
        ("whole run", _figure(found.density, ".3f"), "density"),
        ("attention", _figure(found.attention_share, ".0%"), f"of dense time, {_source(plan)}"),
        ("PSNR", _figure(found.psnr, ".1f", " dB"), "on its prompts"),
        (
            "speed-up",
            _figure(found.speedup, ".2f", "\N{MULTIPLICATION SIGN}"),
            "where it was timed",
        ),
        ("prompts", str(len(found.prompts) or _DASH), "it was searched on"),
    )
    return figure_list(cells, kind="sd-plan-figures")


def _source(plan: PatternPlan) -> str:
    return "measured" if (plan.evidence.cost_source or "").startswith("measured") else "counted"


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return _DASH if value is None else f"{value:{form}}{unit}"


def _layers(report: PlanReport) -> list[dict[str, Any]]:
    """Density of every head, weighted by the steps of each part of the run."""
    plan, steps = report.plan, steps_of(report.plan)
    shares = [
        [[report.density(head.pattern) for head in heads] for heads in bucket]
        for bucket in plan.table.buckets
    ]
    return [
        {
            "name": name,
            "heads": [
                sum(n * shares[part][layer][head] for part, n in enumerate(steps)) / sum(steps)
                for head in range(plan.table.heads[layer])
            ],
        }
        for layer, name in enumerate(plan.fingerprint.layers)
    ]


def _run_words(plan: PatternPlan) -> str:
    table, grid = plan.table, plan.table.grid
    size = " \N{MULTIPLICATION SIGN} ".join(map(str, (grid.frames, grid.height, grid.width)))
    words = f"For {size} tokens in blocks of {table.block_size}; a cell says more when pointed at."
    if table.starts[0]:
        words += f" The first {table.starts[0]:.0%} of the steps are dense."
    return words
