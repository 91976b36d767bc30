"""A line over iterations as inline SVG, for figures of a training."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 150, 46, 20, 8


def line_chart(name: str, points: Sequence[tuple[float, float]]) -> str:
    """One figure by iteration, from 0 (or its least) to its largest value."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(0.0, *ys), max(*ys, 1e-12)
    wide, tall = _WIDTH - _LEFT - 6, _HEIGHT - _BOTTOM - _TOP
    first, last = xs[0], max(xs[-1], xs[0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + wide * (x - first) / (last - first),
            _TOP + tall * (1 - (y - low) / (high - low)),
        )

    line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(name)} by iteration: from {ys[0]:.3g} to {ys[-1]:.3g}">'
    ]
    for value in (low, (low + high) / 2, high):
        y = place(first, value)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    for x, anchor in ((first, "start"), (last, "end")):
        parts.append(
            f'<text x="{place(x, low)[0]:.1f}" y="{_HEIGHT - 5}" text-anchor="{anchor}">{x:g}</text>'
        )
    return "".join([*parts, "</svg>"])
