"""The chart of speed against fidelity, and its numbers as a table; every text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sparsediff.report_pages import sections
from sparsediff.ui.tradeoff import Point, frontier
from sparsediff.ui.tradeoff_files import downloads
from sparsediff.ui.tradeoff_scale import (
    ACROSS,
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    UPWARDS,
    WIDTH,
    Scale,
)

_NOTHING = "Every comparison of a prompt adds a point: how much faster, and how close to dense."


def tradeoff(points: Sequence[Point]) -> str:
    """Chart and table of `points`, the last of which was run last."""
    if not points:
        return f'<div class="sd-look"><p class="sd-nothing">{escape(_NOTHING)}</p></div>'
    intro = (
        "Up is closer to dense, right is faster. Filled: no other run of this prompt is both. "
        "Ringed: the last run."
    )
    chart = sections.section("Speed against fidelity", intro, _chart(points) + downloads(points))
    best = frontier(points)
    rows = [
        (*_row(point), ", ".join(_standing(best=point in best, last=point is points[-1])))
        for point in reversed(points)
    ]
    head = ("method", "density", "of all blocks", "seconds", "speed-up", "PSNR", "SSIM", "note")
    table = sections.section("Runs", "", sections.table(head, rows))
    return f'<div class="sd-look">{chart}{table}</div>'


def _row(point: Point) -> tuple[str, ...]:
    psnr = "identical" if point.psnr is None else f"{point.psnr:.2f} dB"
    figures = (f"{point.density:g}", f"{point.realised:.3f}", f"{point.seconds:.2f}")
    return (point.method, *figures, f"{point.speedup:.2f}x", psnr, f"{point.ssim:.4f}")


def _standing(*, best: bool, last: bool) -> list[str]:
    """What filling and ring say, in words."""
    return [word for word, holds in (("filled", best), ("the last run", last)) if holds]


def _chart(points: Sequence[Point]) -> str:
    scale, best = Scale(points), frontier(points)
    line = " ".join("{:.1f},{:.1f}".format(*scale.place(point)) for point in best)
    parts = [
        f'<svg class="chart tradeoff" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="PSNR against speed-up of {len(points)} runs">',
        *_axes(scale),
        f'<polyline class="line" points="{line}"/>',
    ]
    for point in points:
        x, y = scale.place(point)
        said = f"{point.method}, density {point.density:g}: {', '.join(_row(point)[4:6])}"
        kind = "best" if point in best else "beaten"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(said)}</title>'
            f'</circle><text x="{x + 8:.1f}" y="{y - 6:.1f}">{point.density:g}</text>'
        )
    x, y = scale.place(points[-1])
    parts.append(f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="8"/></svg>')
    return "".join(parts)


def _axes(scale: Scale) -> list[str]:
    """Lines and numbers of both scales, and what they measure."""
    parts = []
    for level, y in scale.levels():
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{level}</text>'
        )
    bottom, dense = HEIGHT - BOTTOM, scale.across(1.0)
    parts.append(
        f'<line class="dense-line" x1="{dense:.1f}" x2="{dense:.1f}" y1="{TOP}" y2="{bottom}"/>'
    )
    for speed, x in scale.speeds():
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{speed}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{ACROSS}</text>'
        f'<text x="4" y="12">{UPWARDS}</text>'
    )
    return parts
