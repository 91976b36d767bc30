"""The chart of error against cost: what other prices would have given, and the plan among them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from sparsediff.plan_sweep import PlanPoint, PlanSweep

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 300, 52, 14, 14, 40
_DECADES = 5  # below, plans are as good as dense


def pareto_chart(sweep: PlanSweep) -> str:
    """Cost across, error upwards on a logarithmic scale; the chosen plan is ringed."""
    frame = _Frame([*sweep.points, *sweep.alike, *([sweep.chosen] if sweep.chosen else [])])
    parts = [
        f'<svg class="chart pareto" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Error against attention time of the plans of a search">',
        *frame.axes(),
    ]
    line = " ".join(f"{frame.x(p):.1f},{frame.y(p):.1f}" for p in sweep.points)
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts += [_dot(frame, p, "alike", 2.5, "one candidate for every head") for p in sweep.alike]
    parts += [_dot(frame, p, "point", 3, f"lambda {p.price:.3g}") for p in sweep.points]
    if sweep.chosen is not None:
        x, y = frame.x(sweep.chosen), frame.y(sweep.chosen)
        parts.append(_dot(frame, sweep.chosen, "chosen", 7, "this plan"))
        left = x > _WIDTH * 0.75
        parts.append(
            f'<text class="label" x="{x + (-11 if left else 11):.1f}" y="{y - 8:.1f}" '
            f'text-anchor="{"end" if left else "start"}">this plan</text>'
        )
    return "".join([*parts, "</svg>"])


class _Frame:
    """The scales that hold all points."""

    def __init__(self, points: Sequence[PlanPoint]) -> None:
        costs = [point.cost for point in points]
        errors = [point.error for point in points if point.error > 0] or [1.0]
        self.most = max(1.0, *costs) * 1.02
        self.high = ceil(log10(max(errors)))
        self.low = min(self.high - 1, max(self.high - _DECADES, floor(log10(min(errors)))))

    def x(self, point: PlanPoint) -> float:
        """Place of a cost."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * point.cost / self.most

    def y(self, point: PlanPoint) -> float:
        """Place of an error; one too small for the scale, or none at all, lies at the bottom."""
        level = log10(point.error) if point.error > 0 else self.low
        return self._level(max(level, self.low))

    def _level(self, level: float) -> float:
        share = (level - self.low) / (self.high - self.low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    def axes(self) -> list[str]:
        """Lines and numbers of both scales, and what they measure."""
        parts, floor_y = [], _HEIGHT - _BOTTOM
        for level in range(self.low, self.high + 1):
            y = self._level(level)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">'
                f"{10.0**level:g}</text>"
            )
        for tenth in range(0, 11, 2):
            x = self.x(PlanPoint(cost=tenth / 10, error=1.0, density=1.0))
            parts.append(
                f'<text x="{x:.1f}" y="{floor_y + 14}" text-anchor="middle">{tenth / 10:g}</text>'
            )
        parts.append(
            f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
            f"attention time of a sparse call, share of dense</text>"
        )
        middle = (_TOP + floor_y) / 2
        parts.append(
            f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"error, share of the output's variance</text>"
        )
        return parts


def _dot(frame: _Frame, point: PlanPoint, kind: str, radius: float, words: str) -> str:
    said = f"{words}: error {point.error:.4g}, cost {point.cost:.3f}, density {point.density:.3f}"
    return (
        f'<circle class="{kind}" cx="{frame.x(point):.1f}" cy="{frame.y(point):.1f}" r="{radius}">'
        f"<title>{escape(said)}</title></circle>"
    )
