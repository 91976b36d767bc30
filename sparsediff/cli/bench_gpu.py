"""`sparsediff bench --kernel --device cuda`: the table of docs/benchmarks/kernels-gpu.md."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only the GPU table takes."""
    group = parser.add_argument_group(
        "kernels on a GPU",
        "With --device cuda: every shape of the table (or the one of --shape), each kernel first "
        "checked against float64, then timed against the fastest dense kernel of the same run.",
    )
    group.add_argument("--output", metavar="DIR", help="write kernels-gpu.md and .json there")
    group.add_argument(
        "--max-minutes", type=float, default=8.5, help="of the whole run; default: %(default)s"
    )
    group.add_argument("--forward-only", action="store_true", help="leave out the backward pass")


def run(args: argparse.Namespace) -> int:
    """Measure, print and write; raises SparseError for bad input or where there is no such device."""
    from sparsediff.bench.gpu import measure_gpu
    from sparsediff.bench.gpu_document import to_json, write_documents
    from sparsediff.bench.machine import machine

    plan = plan_of(args)
    table = measure_gpu(plan, tell=_tell)
    about = machine(args.device)
    command = shlex.join(["sparsediff", *getattr(args, "argv", ["bench", "--kernel"])])
    if args.output:
        for path in write_documents(Path(args.output), table, plan, about, command):
            _tell(f"wrote {path}")
    if args.json:
        print(to_json(table, plan, about))
    else:
        _print(table, about)
    return 0 if table.right else 1


def plan_of(args: argparse.Namespace) -> Any:
    """The plan that the arguments ask for; raises SparseError for bad ones."""
    import torch

    from sparsediff.bench.case import BenchCase
    from sparsediff.bench.plan import Plan, Shape, default_shapes
    from sparsediff.cli.bench import block_size, numbers

    shapes = default_shapes()
    if args.shape:
        case = BenchCase.parse(args.shape)
        shapes = (Shape(tokens=case.tokens, heads=case.batch * case.heads, dim=case.dim),)
    options: dict[str, Any] = {"shapes": shapes, "backward": not args.forward_only}
    options["densities"] = tuple(numbers(args.densities))
    if args.block_size:
        options["block_size"] = block_size(args.block_size)
    if args.backends:
        options["backends"] = tuple(args.backends.split(","))
    if args.repeat is not None:
        options["repeat"] = args.repeat
    dtype = getattr(torch, args.dtype or "bfloat16")
    return Plan(dtype=dtype, device=args.device, minutes=args.max_minutes, **options)


def _print(table: Any, about: dict[str, Any]) -> None:
    from sparsediff.bench.gpu_document import HEAD, cells
    from sparsediff.bench.targets import TARGETS
    from sparsediff.cli.table import table as aligned

    print(", ".join(f"{name} {value}" for name, value in about.items()))
    shape = None
    for shape in dict.fromkeys((row.tokens, row.heads, row.dim) for row in table.rows):
        rows = [row for row in table.rows if (row.tokens, row.heads, row.dim) == shape]
        print(f"\n{shape[0]} tokens, {shape[1]} heads of {shape[2]}")
        print(aligned([HEAD, *map(cells, rows)]))
    print()
    for target in TARGETS:
        found, met = target.verdict(table.rows)
        value = "not measured" if found is None else f"{found:.2f} x, {'met' if met else 'MISSED'}"
        print(f"target, {target.words}: {value}")
    for name, reason in (table.notes | table.failed).items():
        print(f"not measured, {name}: {reason}")
    for name in table.left_out:
        print(f"left out for want of time: {name}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
