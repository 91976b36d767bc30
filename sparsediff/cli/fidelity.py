"""`sparsediff fidelity`: the table of methods and densities against dense, on one model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

DEFAULT_DENSITIES = "0.15,0.25,0.4"


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "fidelity",
        help="measure how close every method stays to dense",
        description="Generate each prompt dense and with every method at every density, from the "
        "same noise, and write the table of PSNR and SSIM against the dense videos.",
    )
    parser.add_argument("model", metavar="MODEL", help="pipeline folder or Hub id")
    parser.add_argument("--prompts", required=True, help="text file, one prompt a line")
    parser.add_argument("--limit", type=int, default=8, help="use the first N prompts (8)")
    parser.add_argument("--densities", default=DEFAULT_DENSITIES, help=f"({DEFAULT_DENSITIES})")
    parser.add_argument("--steps", type=int, help="denoising steps (the model's own)")
    parser.add_argument("--device", help="device (a GPU if there is one)")
    parser.add_argument("-o", "--output", help="write the table to this Markdown file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from sparsediff.environment import device_name, versions
    from sparsediff.fidelity import measure_fidelity
    from sparsediff.generation import GenerationRecipe
    from sparsediff.kernels.errors import SparseError
    from sparsediff.loading import (
        hide_library_bars,
        load_pipeline,
        resolve_device,
        resolve_dtype,
    )
    from sparsediff.model_files import ModelFiles
    from sparsediff.timed_run import Runner

    path = Path(args.prompts)
    if not path.is_file():
        raise SparseError(f"There is no prompt file {args.prompts}; needs one prompt a line.")
    prompts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    prompts = prompts[: args.limit]
    densities = _densities(args.densities)
    hide_library_bars()
    files = ModelFiles(name=args.model)
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=args.steps)
    device = resolve_device(args.device)
    dtype = resolve_dtype(None, recipe)
    pipe = load_pipeline(files, dtype=dtype, device=device)

    def say(text: str) -> None:
        if not args.json and sys.stderr.isatty():
            print(text, file=sys.stderr)

    rows = measure_fidelity(
        lambda prompt, seed: Runner(pipe, recipe, prompt=prompt, seed=seed, device=device),
        prompts,
        densities,
        progress=say,
    )
    about = {
        "model": args.model,
        "prompts": len(prompts),
        "steps": len(pipe.scheduler.timesteps),
        "dtype": dtype,
        "device": device_name(device),
        "versions": versions(),
    }
    if args.json:
        found = {"schema": "sparsediff.fidelity/1", **about, "rows": [r.to_dict() for r in rows]}
        print(json.dumps(found, indent=1))
    table = _markdown(rows, densities)
    if not args.json:
        print(table)
    if args.output:
        Path(args.output).write_text(_document(args, about, table))
    return 0


def _densities(text: str) -> list[float]:
    from sparsediff.kernels.errors import SparseError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SparseError(
            f"densities={text!r}: needs numbers with commas between, such as {DEFAULT_DENSITIES}."
        ) from None


def _markdown(rows: list[Any], densities: list[float]) -> str:
    names = list(dict.fromkeys(row.name for row in rows))
    found = {(row.name, row.density): row for row in rows}
    head = "| method | " + " | ".join(f"density {d:g}" for d in densities) + " |"
    lines = [head, "|---" * (len(densities) + 1) + "|"]
    for name in names:
        cells = []
        for density in densities:
            row = found[name, density]
            low, high = min(row.psnr), max(row.psnr)
            cells.append(f"{row.mean_psnr:.2f} ({low:.1f} to {high:.1f}), {row.mean_ssim:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _document(args: argparse.Namespace, about: dict[str, Any], table: str) -> str:
    steps = f" --steps {args.steps}" if args.steps else ""
    used = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"""# Fidelity to dense attention

Mean PSNR in dB over {about["prompts"]} prompts (lowest to highest), then mean SSIM, of the decoded
video against the dense run from the same noise. {about["steps"]} steps, the first fifth dense for every
method, blocks of 64 tokens; density is the share of block pairs computed in a sparse call.

{table}

* **random blocks**, **window**: key blocks by lot, and the nearest ones, the same in every step.
* **AdaSpa**: the heaviest key blocks of every row, searched at the last dense step and again at 60 % of
  the steps with the cached LSE. *Equal heads* leaves out the paper's budgets by recall.
* **true mass**: the same choice made anew from the exact attention mass in every call; not a method to
  use, but what a perfect search would give.
* **compensation**: every block left out takes part as one mean key and one mean value
  (`compensate=True`).

Made by

```bash
sparsediff fidelity {args.model} --prompts {args.prompts} --limit {args.limit}{steps} \\
    --densities {args.densities} --output {args.output}
```

on {about["device"]}, {about["dtype"]}, {used}.
"""
