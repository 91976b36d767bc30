"""What `sparsediff fidelity` writes: the table in Markdown, and the page around it."""

from __future__ import annotations

import argparse
from typing import Any


def markdown(rows: list[Any], densities: list[float]) -> str:
    """A line a method, a column a density."""
    names = list(dict.fromkeys(row.name for row in rows))
    found = {(row.name, row.density): row for row in rows}
    head = "| method | " + " | ".join(f"density {d:g}" for d in densities) + " |"
    lines = [head, "|---" * (len(densities) + 1) + "|"]
    for name in names:
        cells = []
        for density in densities:
            row = found.get((name, density))
            if row is None:  # a plan has one density
                cells.append("")
                continue
            low, high = min(row.psnr), max(row.psnr)
            cells.append(f"{row.mean_psnr:.2f} ({low:.1f} to {high:.1f}), {row.mean_ssim:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(args: argparse.Namespace, about: dict[str, Any], table: str) -> str:
    """The table with what it means and the command that made it."""
    steps = f" --steps {args.steps}" if args.steps else ""
    plans = "".join(f" \\\n    --plan {folder}" for folder in args.plan)
    used = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"""# Fidelity to dense attention

Mean PSNR in dB over {about["prompts"]} prompts (lowest to highest), then mean SSIM, of the decoded
video against the dense run from the same noise. {about["steps"]} steps, the first fifth dense for every
method, blocks of 64 tokens; density is the share of block pairs computed in a sparse call.

{table}

* **random blocks**, **window**, **window in time**: key blocks by lot, those nearest in the
  sequence, and those nearest to the own place in any frame; the same in every step and head.
* **AdaSpa**: the heaviest key blocks of every row, searched at the last dense step and again at 60 % of
  the steps with the cached LSE. *Equal heads* leaves out the paper's budgets by recall.
* **true mass**: the same choice made anew from the exact attention mass in every call; not a method to
  use, but what a perfect search would give.
* **plan**: fixed patterns per head from an offline search over other prompts (Sparse-vDiT); **plan +
  AdaSpa**: heads that the search found better off so have their blocks searched while generating.
* **compensation**: every block left out takes part as one mean key and one mean value
  (`compensate=True`).

Made by

```bash
sparsediff fidelity {args.model} --prompts {args.prompts} --limit {args.limit}{steps} \\
    --densities {args.densities} --output {args.output}{plans}
```

on {about["device"]}, {about["dtype"]}, {used}.
"""
