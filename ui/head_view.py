"""One head: where it looked beside the blocks that were kept, at every step that was looked at."""

from __future__ import annotations

from html import escape

from sparsediff.head_probe import LayerView
from sparsediff.inside import LAST
from sparsediff.report_pages.pictures import strength, tinted
from sparsediff.ui.head_table import head_name, head_rows
from sparsediff.ui.insides import Opened

_GONE = "This run is not in memory any more. Press Compare to look inside again."


def head_view(opened: Opened | None, layer: int, head: int) -> str:
    """The maps of a head, one step of which is shown; says so where there are none."""
    if opened is None:
        return f'<p class="sd-nothing">{escape(_GONE)}</p>'
    inside = opened.inside
    row = next((row for row in head_rows(inside) if row.layer == layer), None)
    steps = inside.steps(layer)
    if row is None or not steps or not 0 <= head < len(row.density):
        return '<p class="sd-nothing">Nothing was kept of this head; it ran dense.</p>'
    title = f"{row.name}, {head_name(head, row)}"
    views = [inside.views[layer, step] for step in steps]
    shown = next((n for n, view in enumerate(views) if not view.is_dense), 0)
    figures = "".join(
        f'<div class="sd-step"{"" if n == shown else " hidden"}>{_maps(view, head, title, words)}</div>'
        for n, (view, words) in enumerate(zip(views, _said(opened, steps), strict=True))
    )
    return f"<h3>{escape(title)}</h3>{_slider(len(steps), shown)}{figures}"


def _said(opened: Opened, steps: tuple[int, ...]) -> list[str]:
    total = len(opened.inside.report.steps)
    return [
        "The last pattern of the run" if step == LAST else f"Step {step + 1} of {total}"
        for step in steps
    ]


def _slider(count: int, shown: int) -> str:
    if count == 1:
        return ""
    return (
        f'<label class="sd-steps"><span>Step</span><input type="range" min="0" max="{count - 1}" '
        f'step="1" value="{shown}" aria-label="Step of the maps"></label>'
    )


def _maps(view: LayerView, head: int, title: str, when: str) -> str:
    density = view.density[min(head, len(view.density) - 1)]
    kept = view.kept[min(head, len(view.kept) - 1)].float() / 255
    words = f"{when}: dense, every block" if view.is_dense else f"{when}: density {density:.2f}"
    parts = []
    if view.attention is not None:
        recall = view.recall[head]
        words += "" if view.is_dense else f", recall {recall:.3f}"
        strongest = float(view.attention[head].max())
        parts.append(
            _figure(
                tinted(strength(view.attention[head])),
                f"attention of {title}; its strongest cell holds {strongest:.0f} times the mean",
                "attention",
            )
        )
    parts.append(_figure(tinted(kept), f"blocks kept for {title}", "blocks kept"))
    rows, columns = view.blocks
    size = f"{rows} x {columns} blocks of {view.block_size[0]} x {view.block_size[1]} tokens"
    if kept.shape != (rows, columns):
        size += f", shown in {kept.shape[0]} x {kept.shape[1]} cells"
    return (
        f'<p class="sd-when">{escape(words)}</p><div class="sd-pair">{"".join(parts)}</div>'
        f'<p class="sd-size">{escape(size)}. Down: queries, across: keys, in token order.</p>'
    )


def _figure(uri: str, alt: str, caption: str) -> str:
    return (
        f'<figure><img src="{uri}" alt="{escape(alt, quote=True)}"><figcaption>{caption}'
        f"</figcaption></figure>"
    )
