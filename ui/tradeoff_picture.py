"""The chart of speed against fidelity as a picture that stands by itself, drawn without a browser."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from sparsediff.ui.run_document import tradeoff_document
from sparsediff.ui.tradeoff import Point, frontier
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

_FINE, _OUT = 4, 2  # pixels a unit of the chart while it is drawn, and in the file
_HEAD, _FOOT = 40, 10  # units above and below the chart
_PAPER, _INK, _MUTED, _LINE = "#ffffff", "#20242a", "#5c636d", "#e0dcd2"
_ACCENT, _QUIET = "#2f6fab", "#b9b6ad"


def picture(points: Sequence[Point]) -> bytes:
    """A PNG of `points`, the last of them ringed, with what they were run on.

    The documents of the runs are inside it too, as the text entry "sparsediff". Raises IndexError for
    no points.
    """
    from PIL import Image, PngImagePlugin

    pen = _Pen(WIDTH, HEIGHT + _HEAD + _FOOT)
    _words(pen, points[-1].run)
    _draw(pen, points)
    drawn = pen.image.resize((WIDTH * _OUT, (HEIGHT + _HEAD + _FOOT) * _OUT), Image.Resampling.BOX)
    about = PngImagePlugin.PngInfo()
    about.add_itxt("sparsediff", json.dumps(tradeoff_document(point.run for point in points)))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", pnginfo=about)
    return buffer.getvalue()


def _words(pen: _Pen, run: Any) -> None:
    """What was run, above the chart; a prompt beyond the letters of the font is in the text entry."""
    result = run.get("result", {})
    prompt = shorten(str(result.get("prompt", "")), 96, placeholder=" ...")
    shown = prompt if prompt.isascii() else "Speed against fidelity"
    versions = result.get("versions", {})
    parts = [str(result.get(name, "")) for name in ("model", "device_name", "dtype")]
    parts += [f"{name} {versions[name]}" for name in ("sparsediff", "torch") if name in versions]
    pen.text((12, 8), shown or "Speed against fidelity", size=12, fill=_INK)
    pen.text((12, 24), shorten(", ".join(filter(None, parts)), 130), size=8.5, fill=_MUTED)


def _draw(pen: _Pen, points: Sequence[Point]) -> None:
    scale, best = Scale(points), frontier(points)
    bottom, dense = _HEAD + HEIGHT - BOTTOM, scale.across(1.0)
    for level, y in scale.levels():
        pen.line([(LEFT, _HEAD + y), (WIDTH - RIGHT, _HEAD + y)], fill=_LINE)
        pen.text((LEFT - 6, _HEAD + y), level, anchor="rm")
    for speed, x in scale.speeds():
        pen.text((x, bottom + 12), speed, anchor="mm")
    pen.line([(dense, _HEAD + TOP), (dense, bottom)], fill=_QUIET)
    pen.text(((LEFT + WIDTH) / 2, _HEAD + HEIGHT - 9), ACROSS, anchor="mm")
    pen.text((4, _HEAD + 8), UPWARDS, anchor="lm")
    places = {id(point): _place(scale, point) for point in points}
    pen.line([places[id(point)] for point in best], fill=_ACCENT, width=1.5)
    for point in points:
        filled = {"fill": _ACCENT} if point in best else {"fill": _PAPER, "outline": _MUTED}
        x, y = places[id(point)]
        pen.circle((x, y), 4, **filled)
        pen.text((x + 8, y - 9), f"{point.density:g}", anchor="lm", fill=_INK)
    pen.circle(places[id(points[-1])], 8, outline=_INK)


def _place(scale: Scale, point: Point) -> tuple[float, float]:
    x, y = scale.place(point)
    return x, y + _HEAD


class _Pen:
    """Draws in the units of the chart on a canvas several times as fine, which smooths edges."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[tuple[float, float]], *, fill: str, width: float = 1) -> None:
        """A line through points."""
        fine = [(x * _FINE, y * _FINE) for x, y in points]
        self._draw.line(fine, fill=fill, width=round(width * _FINE), joint="curve")

    def circle(self, at: tuple[float, float], radius: float, **colours: str) -> None:
        """A circle, filled or as a ring."""
        x, y, r = at[0] * _FINE, at[1] * _FINE, radius * _FINE
        width = round(1.6 * _FINE) if "outline" in colours else 0
        self._draw.ellipse((x - r, y - r, x + r, y + r), width=width, **colours)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: float = 9,
        anchor: str = "la",
        fill: str = _MUTED,
    ) -> None:
        """A line of text in the font that Pillow brings along."""
        from PIL import ImageFont

        font = ImageFont.load_default(size * _FINE)
        self._draw.text((at[0] * _FINE, at[1] * _FINE), text, fill=fill, font=font, anchor=anchor)
