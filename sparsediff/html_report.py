"""The HTML report of one generation: a single file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

from sparsediff.generation_result import GenerationResult
from sparsediff.report_pages import sections
from sparsediff.report_pages.document import document


def write_report(
    result: GenerationResult, path: Path, *, command: str, outputs: Mapping[str, str]
) -> None:
    """Write the report of `result` to `path`; `command` made it and `outputs` are its files."""
    path.write_text(html_report(result, command=command, outputs=outputs), encoding="utf-8")


def html_report(result: GenerationResult, *, command: str, outputs: Mapping[str, str]) -> str:
    """The page as text; no address in it leads outside of it."""
    return document(
        title=result.prompt,
        subtitle=_subtitle(result),
        parts=[
            sections.headline(result),
            sections.player(result),
            _figures(result),
            _frames(result),
            sections.density(result),
            sections.kept_blocks(result),
            _fallbacks(result),
            _origin(result, command, outputs),
        ],
        data=result.to_dict(outputs),
        scripts=["page.js"],
    )


def _subtitle(result: GenerationResult) -> str:
    size = result.size
    what = f"{size['width']} x {size['height']}"
    if not result.is_image:
        what += f", {size['frames']} frames"
    name = result.report.method.get("name")
    return f"{result.model}, {what}, {result.steps} steps, seed {result.seed}, method {name}"


def _figures(result: GenerationResult) -> str:
    report, dense, q = result.report, result.dense, result.quality
    runs = f"denoising loop only, median of n={len(result.sparse.seconds)}"
    if not result.warmed_up:
        runs += ", first-use set-up included"
    rows = [
        ("seconds", f"{dense.median:.3f}" if dense else "", f"{result.sparse.median:.3f}", runs)
    ]
    if result.sparse.iqr is not None:
        spread = f"{dense.iqr:.3f}" if dense is not None and dense.iqr is not None else ""
        rows.append(
            ("IQR, seconds", spread, f"{result.sparse.iqr:.3f}", "spread of the middle half")
        )
    note = f"{report.sparse_density:.3f} in the {report.sparse_calls} sparse calls, "
    note += f"{report.dense_calls} calls ran dense"
    rows.append(("density", "1.000" if dense else "", f"{report.density:.3f}", note))
    if q is not None:
        loss = "the videos are identical" if q.identical else "against dense; higher is closer"
        rows.append(("PSNR, dB", "", "-" if q.identical else f"{q.psnr:.2f}", loss))
        rows.append(("SSIM", "", f"{q.ssim:.4f}", "1 is equal"))
    if q is not None and not result.is_image:
        note = f"{q.flicker:+.4f}, mean change from frame to frame"
        rows.append(("flicker", f"{q.dense_flicker:.4f}", f"{q.sparse_flicker:.4f}", note))
    return sections.section("Figures", "", sections.table(("", "dense", "sparse", ""), rows))


def _frames(result: GenerationResult) -> str:
    """First, middle and last frame of both videos and their difference."""
    if result.dense_frames is None:
        return ""
    views = {"dense": result.dense_frames, "sparse": result.sparse_frames}
    intro = "The same frame of both runs and where they differ."
    return sections.section("Frames", intro, sections.frame_rows(views))


def _fallbacks(result: GenerationResult) -> str:
    found = result.report.fallbacks
    if not found:
        return sections.section("Fallbacks", "None: every call that was to run sparse did.", "")
    rows = [(str(count), why) for why, count in found.items()]
    return sections.section(
        "Fallbacks",
        "Calls that were to run sparse and ran dense.",
        sections.table(("calls", "reason"), rows),
    )


def _origin(result: GenerationResult, command: str, outputs: Mapping[str, str]) -> str:
    options = {k: v for k, v in result.report.method.items() if k != "name"}
    facts: dict[str, object] = {
        "device": f"{result.device} ({result.device_name})",
        "dtype": result.dtype,
        "kernels": ", ".join(f"{name}: {n} calls" for name, n in result.report.backends.items()),
        "method": f"{result.report.method.get('name')} {json.dumps(options)}",
        "call": json.dumps(dict(result.call)),
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
        "files": ", ".join(outputs.values()),
    }
    if result.plan is not None:
        facts["plan"] = json.dumps(dict(result.plan))
    if result.report.notes:
        facts["notes"] = "; ".join(result.report.notes)
    body = f"<pre>{escape(command)}</pre>{sections.pairs(facts)}"
    return sections.section("How it was made", "", body)
