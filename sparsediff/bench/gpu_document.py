"""The GPU table as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsediff.bench.gpu_row import GpuRow, GpuTable
from sparsediff.bench.plan import Plan
from sparsediff.bench.targets import DIM, LONG, TARGETS

SCHEMA = "sparsediff.bench-gpu/1"
HEAD = ("kernel", "density", "ms", "IQR ms", "n", "TFLOP/s", "x dense", "error", "match")
NAME = "kernels-gpu"
TITLES = {
    "forward": "forward",
    "mass": "block mass",
    "search": "AdaSpa search",
    "backward": "backward",
}


def to_json(table: GpuTable, plan: Plan, about: dict[str, Any]) -> str:
    """One JSON object with the machine, the settings, every round and the targets."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "machine": about,
            "dtype": _dtype(plan),
            "block_size": plan.block_size,
            "minutes": round(table.minutes, 2),
            "rows": [row.to_dict() for row in table.rows],
            "targets": [
                {"target": target.words, "found": found, "met": met}
                for target in TARGETS
                for found, met in [target.verdict(table.rows)]
            ],
            "did_not_compete": table.notes,
            "left_out": table.left_out,
            "failed": table.failed,
        },
        indent=1,
        allow_nan=False,
    )


def to_markdown(table: GpuTable, plan: Plan, about: dict[str, Any], command: str) -> str:
    """The page docs/benchmarks/kernels-gpu.md: how it was measured, targets, a table per shape."""
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    parts = [
        "# Kernels against dense attention on a GPU",
        f"{facts}.",
        f"```text\n$ {command}\n```",
        _method(plan),
        "## Targets\n\n" + _targets(table),
    ]
    for shape in dict.fromkeys((row.tokens, row.heads, row.dim) for row in table.rows):
        rows = [row for row in table.rows if (row.tokens, row.heads, row.dim) == shape]
        parts.append(f"## {shape[0]} tokens, {shape[1]} heads of {shape[2]}\n\n" + _shape(rows))
    parts.append(_rest(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_documents(
    folder: Path, table: GpuTable, plan: Plan, about: dict[str, Any], command: str
) -> list[Path]:
    """Write kernels-gpu.md and kernels-gpu.json into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        folder / f"{NAME}.md": to_markdown(table, plan, about, command),
        folder / f"{NAME}.json": to_json(table, plan, about) + "\n",
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _method(plan: Plan) -> str:
    rows, columns = plan.block_size
    return f"""{_dtype(plan)}, batch 1, `[batch, tokens, heads, dim]`, normally distributed numbers.
Rows compute blocks of {rows} queries x {columns} keys chosen by lot, so neighbouring rows
share none on purpose; block mass and AdaSpa's search use blocks of {columns} x {columns}. Longer
sequences have fewer heads, so that one round takes well under a second; the rate does not depend on
it.

In every round each kernel runs once, in the order of the table, timed by CUDA events behind an
overwritten L2; ms is the median of n rounds after two that are not counted. `x dense` is the median
over the rounds of the time of the fastest of {", ".join(plan.baselines)} over that of the row;
backward is compared with dense backward. For torch's cuDNN and FlashAttention the faster memory
layout of the two was taken. TFLOP/s counts only what is computed: 4 s^2 h d x density forward, 2.5
times that backward, half of it for mass and search.

`error` is the largest against float64 on blocks of the first, a middle and the last rows (backward:
all of one head), as a share of what the dtype's roundings and the length of the sums allow; outputs
started as NaN. A kernel that does not match gets no rate and no ratio."""


def _targets(table: GpuTable) -> str:
    lines = [
        f"Against the fastest dense kernel, at {LONG} tokens and more, head dim {DIM}; the lowest of "
        f"the shapes below.\n",
        "| target | found | met |",
        "|---|---|---|",
    ]
    for target in TARGETS:
        found, met = target.verdict(table.rows)
        value = "not measured" if found is None else f"{found:.2f} x"
        verdict = "-" if met is None else "yes" if met else "NO"
        lines.append(f"| {target.words} | {value} | {verdict} |")
    return "\n".join(lines)


def _shape(rows: Iterable[GpuRow]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 2) + "|---|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def cells(row: GpuRow) -> tuple[str, ...]:
    """One row of the table as words, in the order of HEAD."""
    layout = ", heads first" if row.layout == "bhsd" else ""
    name = f"{TITLES[row.of]}, {row.kernel}{layout}"
    if row.median is None:
        return name, f"{row.density:.3f}", "-", "-", "0", "-", "-", "-", f"failed: {row.failure}"
    return (
        name,
        f"{row.density:.3f}",
        f"{row.median * 1e3:.3f}",
        f"{row.iqr * 1e3:.3f}",
        str(len(row.seconds)),
        "-" if row.tflops is None else f"{row.tflops:.0f}",
        "-" if row.speedup is None else f"{row.speedup:.2f}",
        f"{row.error:.2f}",
        "yes" if row.match else "NO",
    )


def _rest(table: GpuTable) -> str:
    lines = [f"The whole table took {table.minutes:.1f} minutes."]
    for name, reason in table.notes.items():
        lines.append(f"Did not compete: {name} ({reason}).")
    for name, reason in table.failed.items():
        lines.append(f"Failed: {name} ({reason}).")
    for name in table.left_out:
        lines.append(f"Left out for want of time: {name}.")
    return "\n\n".join(lines)


def _dtype(plan: Plan) -> str:
    return str(plan.dtype).removeprefix("torch.")
