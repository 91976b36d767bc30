"""The figures under the player, and the words about a run, as HTML; every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from sparsediff.ui.comparison import Compared
from sparsediff.ui.news import News
from sparsediff.ui.run_figures import RunFigures

_EMPTY = ("dense", "sparse", "speed-up", "density", "PSNR", "SSIM", "flicker")


def figures(found: RunFigures | None) -> str:
    """A cell per figure, with a word below that says what it means; dashes before the first run."""
    cells = [(name, "\N{EN DASH}", "") for name in _EMPTY] if found is None else _cells(found)
    return figure_list(cells)


def figure_list(cells: Iterable[tuple[str, str, str]], *, kind: str = "") -> str:
    """A cell for each (name, value, note); `kind` is a second class of the list."""
    items = "".join(
        f'<div data-figure="{escape(name, quote=True)}"><dt>{escape(name)}</dt>'
        f"<dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in cells
    )
    return f'<dl class="{f"sd-figures {kind}".strip()}">{items}</dl>'


def _cells(found: RunFigures) -> list[tuple[str, str, str]]:
    cells = []
    if found.dense_seconds is not None:
        note = "from an earlier run" if found.dense_reused else "denoising loop"
        cells.append(("dense", _seconds(found.dense_seconds), note))
    cells.append(("sparse", _seconds(found.sparse_seconds), "denoising loop"))
    if found.speedup is not None:
        cells.append(("speed-up", speedup_words(found), "n = 1"))
    sparse = f"{found.sparse_density:.2f} when sparse" if found.sparse_calls else "all dense"
    cells.append(("density", f"{found.density:.3f}", sparse))
    if found.ssim is not None:
        cells.append(("PSNR", psnr_words(found), "higher is closer"))
        cells.append(("SSIM", f"{found.ssim:.3f}", "1 is equal"))
    if found.flicker is not None and found.frames > 1:
        cells.append(("flicker", f"{found.flicker:+z.4f}", "0 is as steady"))
    return cells


def speedup_words(found: RunFigures) -> str:
    """How many times as fast as dense, if both were run."""
    return "" if found.speedup is None else f"{found.speedup:.2f}\N{MULTIPLICATION SIGN}"


def psnr_words(found: RunFigures) -> str:
    """How close to dense, if both were run."""
    if found.identical:
        return "identical"
    return "" if found.psnr is None else f"{found.psnr:.1f} dB"


def status(news: News) -> str:
    """A line with a bar for work that goes on."""
    share = round(100 * news.share)
    return (
        f'<div class="sd-status" data-state="running" role="status">'
        f'<div class="sd-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share}" aria-label="Progress of the run">'
        f'<i style="width:{share}%"></i></div><p>{escape(str(news))}</p></div>'
    )


def message(text: str, *, state: str = "idle") -> str:
    """A line without a bar; `state` is idle, done or error."""
    alert = "alert" if state == "error" else "status"
    return (
        f'<div class="sd-status" data-state="{escape(state, quote=True)}" role="{alert}">'
        f'<div class="sd-progress" aria-hidden="true"><i></i></div><p>{escape(text)}</p></div>'
    )


def summary(compared: Compared) -> str:
    """One sentence on a comparison that is over; says so where the gate kept it dense."""
    report, result = compared.result.report, compared.result
    if report.gated:
        return (
            "Sparse would be slower than dense at this size on this machine, so both runs are dense. "
            "Choose a larger size or a lower density, or untick Stay dense below."
        )
    parts = [f"{report.sparse_calls} of {report.sparse_calls + report.dense_calls} attention calls"]
    parts.append(f"ran sparse over {result.steps} steps, seed {result.seed}.")
    if report.fallbacks:
        reasons = "; ".join(f"{n} x {why}" for why, n in report.fallbacks.items())
        parts.append(f"Fell back: {reasons}.")
    return " ".join(parts)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
