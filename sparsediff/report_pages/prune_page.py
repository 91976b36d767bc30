"""The HTML report of a pruning: what every layer kept, how it was learnt, samples before and after."""

from __future__ import annotations

import json
from html import escape
from statistics import median

from sparsediff.generation_result import Timing
from sparsediff.prune.pruning_result import PruningResult, Sample
from sparsediff.report_pages import pictures, sections
from sparsediff.report_pages.charts import short_names
from sparsediff.report_pages.document import document
from sparsediff.report_pages.line_chart import line_chart
from sparsediff.report_pages.scrolled import scrolled

_NAMES = {"heads": "Attention heads", "ffn": "Feed-forward neurons", "blocks": "Whole blocks"}
_CURVES = {
    "distance": "Distance of the final latents from the whole model's",
    "penalty": "Penalty",
    "heads_density": "Expected share of heads that stay",
    "ffn_density": "Expected share of neurons that stay",
    "blocks_density": "Expected share of blocks that stay",
}


def prune_page(result: PruningResult) -> str:
    """The page as text; no address in it leads outside of it."""
    settings, name = result.settings, result.settings.criterion.name
    return document(
        title=f"{result.model}, pruned",
        subtitle=f"{100 * settings.ratio:.3g} % of {', '.join(settings.target)} asked for, by {name}",
        parts=[
            _headline(result),
            _samples(result),
            *(_layers(result, kind) for kind in settings.target),
            _curves(result),
            _origin(result),
        ],
        data=result.to_dict(),
        styles=["prune.css"],
    )


def _headline(result: PruningResult) -> str:
    lost = result.pruning.given_up
    cells = [(part.what, f"{part.whole - part.part} of {part.whole}") for part in lost.units]
    cells.append(("parameters left", f"{1 - lost.parameters.share:.1%}"))
    if result.samples:
        speedup = median(one.speedup for one in result.samples)
        cells.insert(0, ("speed-up", f"{speedup:.2f}x"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="headline">{items}</dl>'


def _samples(result: PruningResult) -> str:
    if not result.samples:
        return ""
    parts = []
    for one in result.samples:
        words = f"{one.prompt}, seed {one.seed}: {_said(one.dense_time)} before, "
        words += f"{_said(one.pruned_time)} pruned"
        rows = sections.frame_rows({"before": one.dense, "pruned": one.pruned})
        parts.append(f"<h3>{escape(words)}</h3>{_videos(one, result.fps)}{rows}")
    intro = "The same seed before and after. Times are of the denoising loop, run in turns."
    return sections.section("Samples", intro, "".join(parts))


def _said(time: Timing) -> str:
    spread = "" if time.iqr is None else f", IQR {time.iqr:.2g}"
    return f"{time.median:.3g} s (n={len(time.seconds)}{spread})"


def _videos(one: Sample, fps: int) -> str:
    if len(one.dense) == 1:
        return ""
    figures = "".join(
        f'<figure><video muted loop autoplay controls playsinline aria-label="{escape(name)}: '
        f'{escape(one.prompt, quote=True)}" src="{pictures.video(frames, fps)}"></video>'
        f"<figcaption>{name}</figcaption></figure>"
        for name, frames in (("before", one.dense), ("pruned", one.pruned))
    )
    return f'<div class="pair">{figures}</div>'


def _layers(result: PruningResult, kind: str) -> str:
    layers = [layer for layer in result.pruning.layers() if layer["kind"] == kind]
    if not layers:
        return ""
    paths = [str(layer["key"]).partition("/")[2] for layer in layers]
    short = short_names(paths)
    rows = "".join(
        f'<tr><th scope="row" title="{escape(path)}">{escape(short[path])}</th>'
        f'<td class="number">{layer["kept"]} of {layer["units"]}</td>'
        f'<td class="bar"><span style="width:{100 * layer["kept"] / layer["units"]:.1f}%"></span>'
        f"</td></tr>"
        for path, layer in zip(paths, layers, strict=True)
    )
    table = f'<table class="plain kept"><tbody>{rows}</tbody></table>'
    body = scrolled(table, label=f"{_NAMES[kind]} of each layer")
    return sections.section(_NAMES[kind], "What each layer keeps.", body)


def _curves(result: PruningResult) -> str:
    charts = [
        f"<figure>{line_chart(title, points)}<figcaption>{title}</figcaption></figure>"
        for key, title in _CURVES.items()
        if (points := [(x["iteration"], x[key]) for x in result.curve if key in x])
    ]
    if not charts:
        return ""
    return sections.section(
        "Learning", "By iteration.", f'<div class="pair">{"".join(charts)}</div>'
    )


def _origin(result: PruningResult) -> str:
    proof = "the cut model computes what the masked one does, within 1e-5"
    facts: dict[str, object] = {
        "component": result.component,
        "given up": str(result.pruning.given_up),
        "criterion": json.dumps(result.settings.criterion.to_dict()),
        "checked": proof if result.checked else "no: its inputs do not follow from its config",
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
    }
    body = f"<pre>{escape(result.command)}</pre>{sections.pairs(facts)}"
    return sections.section("How it was made", "", body)
