"""The table that `sparsediff generate` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.cli.table import table
from sparsediff.generation_result import GenerationResult


def figures(result: GenerationResult, outputs: Mapping[str, str]) -> str:
    """Headline, aligned figures and file names as plain text."""
    parts = [result.prompt, headline(result), "", table(_rows(result)), ""]
    parts += [table([(kind, path) for kind, path in outputs.items()])]
    return "\n".join(parts)


def headline(result: GenerationResult) -> str:
    """One line that says what was run."""
    size = result.size
    shape = f"{size['width']}x{size['height']}"
    if not result.is_image:
        shape += f", {size['frames']} frames"
    method = result.report.method
    return (
        f"{result.model}: {shape}, {result.steps} steps, seed {result.seed}, {result.device} "
        f"{result.dtype}, {method.get('name')} at density {method.get('density'):g}"
    )


def _rows(result: GenerationResult) -> list[tuple[str, ...]]:
    report, dense, q = result.report, result.dense, result.quality
    runs = f"denoising loop, n={len(result.sparse.seconds)}"
    if result.sparse.iqr is not None:
        runs += f", IQR {_pair(dense.iqr if dense else None, result.sparse.iqr)}"
    if not result.warmed_up:
        runs += ", first-use set-up included"
    rows: list[tuple[str, ...]] = [("", "dense", "sparse", "")]
    rows.append(
        ("seconds", _seconds(dense.median) if dense else "-", _seconds(result.sparse.median), runs)
    )
    if result.speedup is not None:
        rows.append(("speed-up", "", f"{result.speedup:.2f}x", ""))
    rows.append(
        (
            "density",
            "1.000" if dense else "-",
            f"{report.density:.3f}",
            f"{report.sparse_density:.3f} in the {report.sparse_calls} of "
            f"{report.sparse_calls + report.dense_calls} calls that ran sparse",
        )
    )
    if q is not None:
        rows.append(
            ("PSNR", "", "identical" if q.identical else f"{q.psnr:.2f} dB", "higher is closer")
        )
        rows.append(("SSIM", "", f"{q.ssim:.4f}", "1 is equal"))
    if q is not None and not result.is_image:
        rows.append(
            ("flicker", f"{q.dense_flicker:.4f}", f"{q.sparse_flicker:.4f}", f"{q.flicker:+.4f}")
        )
    fallbacks = "; ".join(f"{n} x {why}" for why, n in report.fallbacks.items())
    rows.append(("fallbacks", "", str(sum(report.fallbacks.values())), fallbacks))
    if result.plan is not None:
        modes = ", ".join(f"{mode} {count}" for mode, count in result.plan["modes"].items())
        rows.append(("plan", "", "", f"patterns: {modes}"))
    rows += [("gate", "", *_decision(found)) for found in report.predictions]
    rows += [("note", "", "", note) for note in report.notes]
    return rows


def _decision(found: Mapping[str, Any]) -> tuple[str, str]:
    """What the gate decided for a length, and why."""
    words = (
        f"{found['tokens']:,} tokens: attention predicted to take {found['ratio']:.2f} of dense "
        f"attention's time"
    )
    return ("sparse", words) if found["pays"] else ("dense", f"{words}; --no-gate runs sparse")


def _pair(dense: float | None, sparse: float) -> str:
    return _seconds(sparse) if dense is None else f"{_seconds(dense)} and {_seconds(sparse)}"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
