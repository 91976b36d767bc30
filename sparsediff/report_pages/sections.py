"""Sections of the report, each from a result to a piece of HTML; every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from torch import Tensor

from sparsediff.generation_result import GenerationResult
from sparsediff.report import RunReport
from sparsediff.report_pages import pictures
from sparsediff.report_pages.charts import density_table, short_names, steps_chart
from sparsediff.report_pages.scrolled import scrolled


def section(title: str, intro: str, body: str) -> str:
    """A titled part of the page; `intro` and `body` are HTML."""
    return f"<section><h2>{escape(title)}</h2><p>{intro}</p>{body}</section>"


def headline(result: GenerationResult) -> str:
    """The few figures that matter."""
    q = result.quality
    cells = [("speed-up", f"{result.speedup:.2f}x")] if result.speedup is not None else []
    cells.append(("sparse", f"{result.sparse.median:.3g} s"))
    if result.dense is not None:
        cells.append(("dense", f"{result.dense.median:.3g} s"))
    cells.append(("density", f"{result.report.density:.3f}"))
    if q is not None:
        cells.append(("PSNR", "identical" if q.identical else f"{q.psnr:.1f} dB"))
        cells.append(("SSIM", f"{q.ssim:.3f}"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="headline">{items}</dl>'


def player(result: GenerationResult) -> str:
    """Both videos (or images) side by side, with one set of controls."""
    shown = [("sparse", result.sparse_frames, result.sparse.median)]
    if result.dense_frames is not None and result.dense is not None:
        shown.insert(0, ("dense", result.dense_frames, result.dense.median))
    figures = "".join(
        f"<figure>{_moving(frames, result, name)}<figcaption><b>{name}</b> {seconds:.3g} s"
        f"</figcaption></figure>"
        for name, frames, seconds in shown
    )
    if result.is_image:
        return f'<div class="pair player">{figures}</div>'
    return (
        f'<div class="player" data-fps="{result.fps}" data-frames="{len(result.sparse_frames)}">'
        f'<div class="pair">{figures}</div><div class="controls">'
        f'<button type="button" data-do="play">Play</button>'
        f'<button type="button" data-do="back" aria-label="One frame back">&lsaquo;</button>'
        f'<button type="button" data-do="on" aria-label="One frame on">&rsaquo;</button>'
        f'<input type="range" min="0" value="0" step="1" aria-label="Frame"><output></output>'
        f"</div></div>"
    )


def _moving(frames: Tensor, result: GenerationResult, name: str) -> str:
    label = escape(f"{name}: {result.prompt}", quote=True)
    if result.is_image:
        return f'<img alt="{label}" src="{pictures.frame(frames[0])}">'
    source = pictures.video(frames, result.fps)
    return (
        f'<video muted loop playsinline preload="auto" aria-label="{label}" src="{source}"></video>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table: first column names, last column notes, figures between; texts are escaped."""
    last = len(head) - 1

    def cell(place: int, text: str) -> str:
        if place == 0:
            return f'<th scope="row">{escape(text)}</th>'
        kind = "note" if place == last else "number"
        return f'<td class="{kind}">{escape(text)}</td>'

    names = "".join(
        f'<th scope="col"{"" if i in (0, last) else " class=number"}>{escape(name)}</th>'
        for i, name in enumerate(head)
    )
    body = "".join(
        f"<tr>{''.join(cell(i, text) for i, text in enumerate(row))}</tr>" for row in rows
    )
    whole = f'<table class="plain"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'
    return scrolled(whole, label=f"Table of {', '.join(filter(None, head))}")


def density(result: GenerationResult) -> str:
    """Density per step and per layer and head."""
    return step_density(result.report) + section(
        "Density per layer and head",
        "Mean over the sparse calls of the run; a stronger tint computes more.",
        density_table(result.report.layers),
    )


def step_density(report: RunReport) -> str:
    """Density per step, sparse and dense steps told apart."""
    legend = (
        "Share of block pairs computed. "
        '<span class="swatch" style="background:var(--accent)"></span> sparse steps, '
        '<span class="swatch" style="background:var(--quiet)"></span> dense steps.'
    )
    return section("Density per step", legend, steps_chart(report.steps))


def kept_blocks(result: GenerationResult) -> str:
    """The last mask of every layer and head as a small map."""
    side = pictures.map_side(sum(mask.counts.shape[1] for mask in result.masks.values()))
    parts = []
    short = short_names(list(result.masks))
    for name, mask in result.masks.items():
        shares = mask.head_density[0].tolist()
        maps = "".join(
            f'<figure><img alt="kept blocks of {escape(name)}, head {head}" src="{uri}">'
            f"<figcaption>head {head}: {share:.2f}</figcaption></figure>"
            for head, (uri, share) in enumerate(
                zip(pictures.kept_blocks(mask, side), shares, strict=True)
            )
        )
        rows, columns = mask.block_size
        size = f"{mask.q_blocks} x {mask.kv_blocks} blocks of {rows} x {columns}"
        parts.append(
            f'<h3 title="{escape(name)}">{escape(short[name])}, {size}</h3>'
            f'<div class="maps">{maps}</div>'
        )
    intro = (
        "The last pattern of the run. Down: query blocks, across: key blocks, both in token order."
    )
    return section("Kept blocks", intro, "".join(parts)) if parts else ""


def frame_rows(videos: Mapping[str, Tensor]) -> str:
    """First, middle and last frame of one or two videos ``[f, h, w, 3]``, and how two differ."""
    count = min(len(video) for video in videos.values())
    places = sorted({0, count // 2, count - 1})
    if len(videos) == 1:
        ((name, video),) = videos.items()
        views = {f"{name}, frame {place + 1}": pictures.frame(video[place]) for place in places}
        return _frames(views, views)
    rows = []
    for place in places:
        views = {name: pictures.frame(video[place]) for name, video in videos.items()}
        apart = pictures.difference(*(video[place] for video in videos.values()))
        views[f"difference x {pictures.DIFFERENCE_GAIN}"] = apart
        title = "" if count == 1 else f"<h3>frame {place + 1}</h3>"
        rows.append(title + _frames(views, [f"{name}, frame {place + 1}" for name in views]))
    return "".join(rows)


def _frames(views: Mapping[str, str], said: Iterable[str]) -> str:
    """Pictures side by side, by caption; `said` are their descriptions."""
    figures = "".join(
        f'<figure><img alt="{escape(words)}" src="{uri}"><figcaption>{escape(name)}</figcaption>'
        f"</figure>"
        for words, (name, uri) in zip(said, views.items(), strict=True)
    )
    return f'<div class="frames">{figures}</div>'


def pairs(values: Mapping[str, object]) -> str:
    """Names and values as a two-column table."""
    return table(("", ""), [(name, str(value)) for name, value in values.items()])
