"""Charts of the report: density per step as inline SVG, density per layer and head as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sparsediff.report_pages.scrolled import scrolled

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 130, 26, 18, 6


def steps_chart(steps: Sequence[dict[str, Any]]) -> str:
    """A bar per denoising step, grey where every call ran dense; the first step is 1."""
    plot_width, plot_height = _WIDTH - _LEFT, _HEIGHT - _BOTTOM - _TOP
    pitch = plot_width / max(1, len(steps))
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Density of every denoising step">'
    ]
    for mark in (0.0, 0.5, 1.0):
        y = _TOP + plot_height * (1 - mark)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{mark:g}</text>')
    for place, step in enumerate(steps):
        tall = plot_height * float(step["density"])
        kind = "sparse" if step["sparse_calls"] else "dense"
        said = f"step {int(step['step']) + 1}: density {step['density']:.3f}, "
        said += f"{step['sparse_calls']} sparse and {step['dense_calls']} dense calls"
        parts.append(
            f'<rect class="{kind}" x="{_LEFT + place * pitch + 1:.2f}" '
            f'y="{_TOP + plot_height - tall:.2f}" width="{max(0.5, pitch - 2):.2f}" '
            f'height="{tall:.2f}"><title>{escape(said)}</title></rect>'
        )
    for place in sorted({0, len(steps) // 2, len(steps) - 1} if steps else set()):
        x = _LEFT + (place + 0.5) * pitch
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">'
            f"{int(steps[place]['step']) + 1}</text>"
        )
    return "".join([*parts, "</svg>"])


def density_table(layers: Sequence[dict[str, Any]]) -> str:
    """Layers down, heads across; the stronger the tint, the more blocks the head computes."""
    heads = max((len(layer["heads"]) for layer in layers), default=0)
    most = max((d for layer in layers for d in layer["heads"]), default=1.0) or 1.0
    names = ["all heads"] if heads == 1 else [str(h) for h in range(heads)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    short = short_names([str(layer["name"]) for layer in layers])
    for layer in layers:
        cells = "".join(f'<td style="--share:{d / most:.3f}">{d:.2f}</td>' for d in layer["heads"])
        empty = heads - len(layer["heads"])
        cells += f'<td class="none" colspan="{empty}">dense</td>' if empty else ""
        name = str(layer["name"])
        rows.append(
            f'<tr><th scope="row" title="{escape(name)}">{escape(short[name])}</th>{cells}</tr>'
        )
    table = (
        f'<table class="heat"><thead><tr><th scope="col">layer \\ head</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return scrolled(table, label="Density of every layer and head")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Module names without the parts that all share at either end, at least two parts long.

    "transformer.blocks.0.attn1" and "transformer.blocks.1.attn1" become "blocks.0" and "blocks.1".
    """
    parts = {name: name.split(".") for name in names}
    for end in (-1, 0):
        while all(len(p) > 2 for p in parts.values()):
            shared = {p[end] for p in parts.values()}
            if len(shared) != 1 or shared.pop().isdecimal():  # a block number stays
                break
            parts = {name: (p[:-1] if end else p[1:]) for name, p in parts.items()}
    return {name: ".".join(part) for name, part in parts.items()}
