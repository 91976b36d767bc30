"""`sparsediff fidelity`: the table of methods and densities against dense, on one model."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from sparsediff.cli.fidelity_document import document, markdown
from sparsediff.cli.prompt_file import read_prompts

SCHEMA = "sparsediff.fidelity/1"
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
    parser.add_argument(
        "--plan",
        action="append",
        default=[],
        metavar="DIR",
        help="also measure this plan; may be given again",
    )
    parser.add_argument("--steps", type=int, help="denoising steps (the model's own)")
    parser.add_argument("--device", help="device (a GPU if there is one)")
    parser.add_argument("-o", "--output", help="write the table to this Markdown file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; raises SparseError for bad input before the model is loaded."""
    prompts, densities = read_prompts(args.prompts, args.limit), _densities(args.densities)
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise _error(f"There is no folder for {args.output}; make it first.")
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is not our answer
        about, rows = _measure(args, prompts, densities)
    table = markdown(rows, densities)
    if args.json:
        found = {"schema": SCHEMA, **about, "rows": [row.to_dict() for row in rows]}
        print(json.dumps(found, allow_nan=False))
    else:
        print(table)
    if args.output:
        Path(args.output).write_text(document(args, about, table), encoding="utf-8")
    return 0


def _measure(
    args: argparse.Namespace, prompts: list[str], densities: list[float]
) -> tuple[dict[str, Any], list[Any]]:
    """What was run on, and the rows."""
    from sparsediff.cli.fidelity_plans import placed_plans
    from sparsediff.environment import device_name, versions
    from sparsediff.fidelity import measure_fidelity
    from sparsediff.generation import GenerationRecipe
    from sparsediff.loading import hide_library_bars, load_pipeline, resolve_device, resolve_dtype
    from sparsediff.model_files import ModelFiles
    from sparsediff.timed_run import Runner

    hide_library_bars()
    files = ModelFiles(name=args.model)
    plans = placed_plans(args.plan, densities)
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=args.steps)
    device = resolve_device(args.device)
    dtype = resolve_dtype(None, recipe, device)
    pipe = load_pipeline(files, dtype=dtype, device=device)
    for plan in plans.values():
        plan.check(pipe)
    show = not args.json and sys.stderr.isatty()
    rows = measure_fidelity(
        lambda prompt, seed: Runner(pipe, recipe, prompt=prompt, seed=seed, device=device),
        prompts,
        densities,
        planned={place: plan.method() for place, plan in plans.items()},
        progress=lambda text: print(text, file=sys.stderr) if show else None,
    )
    about = {
        "model": args.model,
        "prompts": len(prompts),
        "steps": len(pipe.scheduler.timesteps),
        "dtype": dtype,
        "device": device_name(device),
        "versions": versions(),
    }
    return about, rows


def _densities(text: str) -> list[float]:
    from sparsediff.search import AdaSpa

    try:
        densities = [float(part) for part in text.split(",")]
    except ValueError:
        raise _error(
            f"densities={text!r}: needs numbers with commas between, such as {DEFAULT_DENSITIES}."
        ) from None
    for density in densities:
        AdaSpa(density=density)  # refuses what a method would refuse later
    return densities


def _error(text: str) -> Exception:
    from sparsediff.kernels.errors import SparseError  # brings in torch, so not for --help

    return SparseError(text)
