"""The map of a plan: which mode every head of every layer has, in each part of the run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sparsediff.plan_report import PlanReport
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.report_pages.charts import short_names
from sparsediff.search.offline.sampled_steps import SampledSteps
from sparsediff.search.patterns.pattern import (
    MODES,
    Diagonal,
    MultiDiagonal,
    Online,
    Pattern,
    Stripe,
)
from sparsediff.search.patterns.pattern_table import PlannedHead

LETTERS = {
    "full": "F",
    "skip": "\N{MULTIPLICATION SIGN}",
    "diagonal": "D",
    "multi-diagonal": "M",
    "stripe": "S",
    "online": "O",
}
_WIDE = 20  # heads; more of them get smaller cells


def legend(plan: PatternPlan) -> str:
    """Letter, colour, name and number of every mode that occurs."""
    total = plan.table.entries
    items = "".join(
        f'<li><b class="m-{mode}">{LETTERS[mode]}</b>{mode}: {count} ({count / total:.0%})</li>'
        for mode, count in plan.table.modes.items()
    )
    return f'<ul class="legend">{items}</ul>'


def mode_map(report: PlanReport) -> str:
    """A table for every part of the run: layers down, heads across."""
    parts = [
        f"<div><h3>{escape(words)}</h3>{_table(report, bucket)}</div>"
        for words, bucket in zip(part_names(report.plan), report.plan.table.buckets, strict=True)
    ]
    return f'{legend(report.plan)}<div class="parts">{"".join(parts)}</div>'


def part_names(plan: PatternPlan) -> list[str]:
    """Every part of the run in words."""
    starts = plan.table.starts
    ends = [*starts[1:], 1.0]
    names = [
        f"{start:.0%} to {end:.0%} of the run" for start, end in zip(starts, ends, strict=True)
    ]
    total = plan.fingerprint.steps
    if not total:
        return names
    bounds = SampledSteps(starts=starts).bounds(total)
    return [f"{name}: {_steps(*bound)}" for name, bound in zip(names, bounds, strict=True)]


def described(pattern: Pattern) -> str:
    """A pattern in words, widths in periods of the grid."""
    mode = MODES[type(pattern)]
    if isinstance(pattern, Diagonal):
        return f"{mode}, {pattern.half_width:.3g} periods to either side"
    if isinstance(pattern, MultiDiagonal):
        widths = ", ".join(f"{width:.3g}" for width in pattern.half_widths[:6])
        more = ", ..." if len(pattern.half_widths) > 6 else ""
        where = " in all periods" if pattern.everywhere else ""
        moved = ", tokens reordered" if pattern.by_place else ""
        return f"{mode}, half widths {widths}{more}{where}{moved}"
    if isinstance(pattern, Stripe):
        return f"{mode}, {len(pattern.columns)} key blocks"
    if isinstance(pattern, Online):
        return f"{mode}, searched while generating"
    return mode


def head_words(report: PlanReport, layer: int, planned: PlannedHead) -> str:
    """A head's pattern with density, error and cost, as far as known."""
    words = [described(planned.pattern), f"density {report.density(planned.pattern):.3f}"]
    if planned.error is not None:
        words.append(f"error {planned.error:.4g}")
    cost = report.cost(layer, planned.pattern)
    if cost is not None:
        words.append(f"cost {cost:.3f}")
    return "; ".join(words)


def layer_names(plan: PatternPlan) -> list[str]:
    """The layers' names without what all of them share."""
    names = list(plan.fingerprint.layers)
    short = short_names(names)
    return [short[name] for name in names]


def _table(report: PlanReport, bucket: Sequence[Sequence[PlannedHead]]) -> str:
    heads = max(len(row) for row in bucket)
    head = "".join(f'<th scope="col">{number}</th>' for number in range(heads))
    rows = []
    names = layer_names(report.plan)
    for layer, (name, row) in enumerate(zip(names, bucket, strict=True)):
        cells = "".join(_cell(report, layer, number, x, name) for number, x in enumerate(row))
        full = escape(report.plan.fingerprint.layers[layer])
        rows.append(f'<tr><th scope="row" title="{full}">{escape(name)}</th>{cells}</tr>')
    wide = " wide" if heads > _WIDE else ""
    return (
        f'<div class="scroll{wide}"><table class="modes"><thead><tr><th scope="col">layer \\ head'
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(report: PlanReport, layer: int, number: int, planned: PlannedHead, name: str) -> str:
    mode = MODES[type(planned.pattern)]
    said = escape(f"{name}, head {number}: {head_words(report, layer, planned)}", quote=True)
    return f'<td class="m-{mode}" title="{said}">{LETTERS[mode]}</td>'


def _steps(begin: int, end: int) -> str:
    if end <= begin:
        return "no step"
    return f"step {end}" if end == begin + 1 else f"steps {begin + 1} to {end}"
