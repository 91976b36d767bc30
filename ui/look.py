"""Look inside: where a run was sparse, what every head kept and missed, what fell back and why."""

from __future__ import annotations

from html import escape

from sparsediff.inside import Inside
from sparsediff.report import RunReport
from sparsediff.report_pages import sections
from sparsediff.ui.head_table import head_table, lowest_recall
from sparsediff.ui.head_view import head_view
from sparsediff.ui.insides import Opened

_NOTHING = (
    "After a comparison: the density of every step, layer and head, and the blocks they kept."
)
_DENSITY = "<b>Density</b>: share of block pairs computed, the mean of the sparse calls."
_RECALL = (
    "<b>Recall</b>: share of the dense attention's weight that lies in the blocks computed, the "
    "mean of the sparse steps looked at; the tint begins at {:.1f}."
)
_COST = (
    "How much of the attention the kept blocks hold has to be measured: one more sparse run, in which "
    "each head is also looked at. Its time counts nowhere."
)


def look(opened: Opened | None) -> str:
    """The inside of a run as a part of the page."""
    if opened is None:
        return f'<div class="sd-look"><p class="sd-nothing">{escape(_NOTHING)}</p></div>'
    report = opened.inside.report
    parts = [_heads(opened), sections.step_density(report), _calls(report), _log(opened)]
    return f'<div class="sd-look" data-token="{opened.token}">{"".join(parts)}</div>'


def _heads(opened: Opened) -> str:
    inside = opened.inside
    if not inside.views:
        text = "Every attention call ran dense, so all heads hold everything."
        return sections.section("Layers and heads", text, "")
    layer, head = opened.head
    body = (
        f"{_choice(inside)}{head_table(opened)}"
        f'<div class="sd-head-view" aria-live="polite">{head_view(opened, layer, head)}</div>'
    )
    intro = f"{_DENSITY} Choose a head to see its blocks."
    if inside.measured:
        intro = f"{_RECALL.format(lowest_recall(inside))} {_DENSITY} Choose a head to see its maps."
    return sections.section("Layers and heads", intro, body)


def _choice(inside: Inside) -> str:
    """What the map shows, where both are known; else the button that measures."""
    if not inside.measured:
        return (
            f'<p class="sd-measure"><button type="button" data-do="measure">Measure recall</button>'
            f"<span>{escape(_COST)}</span></p>"
        )
    views = "".join(
        f'<button type="button" role="radio" data-show="{name}" '
        f'aria-checked="{str(name == "recall").lower()}">{name.capitalize()}</button>'
        for name in ("recall", "density")
    )
    return f'<div class="sd-views" role="radiogroup" aria-label="What the map shows">{views}</div>'


def _calls(report: RunReport) -> str:
    """Which kernels ran, what fell back, what the gate predicted, as a table of reasons."""
    rows = [(str(count), f"sparse, kernel {name}") for name, count in report.backends.items()]
    rows.append((str(report.dense_calls), "dense"))
    rows += [(str(count), f"fell back: {why}") for why, count in report.fallbacks.items()]
    rows += [("", note) for note in report.notes]
    rows += [
        (
            "",
            f"{found['tokens']:,} tokens: predicted {found['ratio']:.2f} of dense attention's time",
        )
        for found in report.predictions
    ]
    return sections.section("Attention calls", "", sections.table(("calls", "how"), rows))


def _log(opened: Opened) -> str:
    text = "\n".join([*opened.log, "", str(opened.inside.report)])
    return f"<section><details><summary>Log</summary><pre>{escape(text)}</pre></details></section>"
