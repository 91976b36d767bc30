"""The map of layers and heads: density and recall of each, as buttons that show the head."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import floor

from sparsediff.inside import Inside
from sparsediff.report_pages.charts import short_names
from sparsediff.ui.insides import Opened


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadRow:
    """A layer of the map: ``density`` and ``recall`` of its heads, both empty where nobody knows."""

    layer: int
    name: str
    density: tuple[float, ...]
    recall: tuple[float, ...]


def head_rows(inside: Inside) -> list[HeadRow]:
    """A row for every layer; a mask that all heads share counts for each of them."""
    layers = inside.report.layers
    short = short_names([str(row["name"]) for row in layers])
    return [_row(inside, int(str(row["layer"])), short[str(row["name"])], row) for row in layers]


def _row(inside: Inside, layer: int, name: str, found: dict[str, object]) -> HeadRow:
    heads = found["heads"]
    density = tuple(float(share) for share in heads) if isinstance(heads, list) else ()
    recall = inside.recall(layer)
    views = [inside.views[layer, step] for step in inside.steps(layer)]
    if not density and views:  # dense throughout, and looked at
        density = recall = (1.0,) * len(views[0].density)
    if len(density) == 1 and recall:
        density *= len(recall)
    return HeadRow(layer=layer, name=name, density=density, recall=recall)


def head_table(opened: Opened) -> str:
    """Layers down, heads across; the stronger the tint, the more."""
    inside = opened.inside
    rows = head_rows(inside)
    width = max((len(row.density) for row in rows), default=0)
    scale = _Scale.of(rows)
    names = ["all heads"] if width == 1 else [str(head) for head in range(width)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(_line(row, width, scale, opened) for row in rows)
    shown = "recall" if inside.measured else "density"
    return (
        f'<div class="scroll" data-map="{shown}"><table class="heat sd-heads"><thead><tr>'
        f'<th scope="col">layer \\ head</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def lowest_recall(inside: Inside) -> float:
    """Where the tint of the recall begins: a tenth at or below all of them."""
    return _Scale.of(head_rows(inside)).recall


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """What the strongest tint of density, and the palest of recall, stand for."""

    density: float
    recall: float

    @classmethod
    def of(cls, rows: list[HeadRow]) -> _Scale:
        densities = [share for row in rows for share in row.density]
        recalls = [share for row in rows for share in row.recall]
        lowest = min(0.9, floor(10 * min(recalls, default=0.9)) / 10)
        return cls(density=max(densities, default=1.0) or 1.0, recall=lowest)


def _line(row: HeadRow, width: int, scale: _Scale, opened: Opened) -> str:
    cells = "".join(_cell(row, head, scale, opened) for head in range(len(row.density)))
    empty = width - len(row.density)
    cells += f'<td class="none" colspan="{empty}">dense</td>' if empty else ""
    return f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>'


def _cell(row: HeadRow, head: int, scale: _Scale, opened: Opened) -> str:
    density = row.density[head]
    style = f"--density:{density / scale.density:.3f}"
    said = f"{row.name}, {head_name(head, row)}: density {density:.2f}"
    texts = f'<span class="density">{density:.2f}</span>'
    if row.recall:
        recall = row.recall[head]
        style += f";--recall:{max(0.0, (recall - scale.recall) / (1 - scale.recall)):.3f}"
        said += f", recall {recall:.2f}"
        texts += f'<span class="recall">{recall:.2f}</span>'
    chosen = (row.layer, head) == opened.head
    return (
        f'<td style="{style}"><button type="button" data-layer="{row.layer}" data-head="{head}" '
        f'tabindex="{0 if chosen else -1}" aria-pressed="{str(chosen).lower()}" '
        f'aria-label="{escape(said, quote=True)}">{texts}</button></td>'
    )


def head_name(head: int, row: HeadRow) -> str:
    """A head in words; one entry may stand for all heads."""
    return "all heads" if len(row.density) == 1 else f"head {head}"
