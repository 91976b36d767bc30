"""`sparsediff bench`: how fast the kernels are on this machine, and whether they are right."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

SCHEMA = "sparsediff.bench/1"
DENSITIES = "0.1,0.2,0.3,0.5,1.0"


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "bench",
        help="time the attention kernels against dense attention",
        description="Random self-attention of one shape: every usable backend at several densities "
        "and the block mass, each in turns with F.scaled_dot_product_attention, each checked "
        "against the reference. Exit code 1 when a kernel does not match.",
    )
    p.add_argument("--kernel", action="store_true", help="measure the kernels (the only choice)")
    p.add_argument("--shape", default="1x8x4096x64", help="batch x heads x tokens x dim")
    p.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    p.add_argument("--densities", default=DENSITIES, help="default: %(default)s")
    p.add_argument("--block-size", type=int, default=64, help="tokens; default: %(default)s")
    p.add_argument("--repeat", type=int, default=7, help="timed rounds; default: %(default)s")
    p.add_argument("--device", default="cpu", help="default: %(default)s")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError for a bad shape or density."""
    if "torch" not in sys.modules:
        # Threads that spin while they wait make the many short calls of a kernel look slow.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from sparsediff.bench import BenchCase, measure_kernels
    from sparsediff.kernels import SparseError

    if not args.kernel:
        raise SparseError("There is nothing to measure; give --kernel.")
    case = BenchCase.parse(
        args.shape,
        block=args.block_size,
        dtype=getattr(torch, args.dtype),
        device=args.device,
        repeat=args.repeat,
    )
    rows = []
    for row in measure_kernels(case, _densities(args.densities)):
        rows.append(row)
        if sys.stderr.isatty():
            print(f"{row.kernel}, density {row.density:.2f}: done", file=sys.stderr)
    facts = _facts(case)
    if args.json:
        kernels = [row.to_dict() for row in rows]
        print(json.dumps({"schema": SCHEMA, **facts, "rows": kernels}))
    else:
        _print_table(facts, rows)
    return 0 if all(row.match for row in rows) else 1


def _densities(text: str) -> list[float]:
    from sparsediff.kernels import SparseError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SparseError(
            f"--densities {text!r} is not a list of numbers; give it like {DENSITIES}."
        ) from None


def _facts(case: Any) -> dict[str, Any]:
    """What a ratio depends on."""
    import torch

    from sparsediff import environment

    return {
        "shape": f"{case.batch}x{case.heads}x{case.tokens}x{case.dim}",
        "dtype": str(case.dtype).removeprefix("torch."),
        "block_size": case.block,
        "device": case.device,
        "device_name": environment.device_name(case.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }


def _print_table(facts: dict[str, Any], rows: list[Any]) -> None:
    from sparsediff.cli.table import table

    print(
        f"{facts['shape']} {facts['dtype']}, block {facts['block_size']}, {facts['device_name']}, "
        f"torch {facts['torch']}, "
        f"OMP_WAIT_POLICY {facts['wait_policy']}\n"
    )
    head = ("kernel", "density", "median ms", "IQR ms", "n", "x dense", "max error", "match")
    lines = [head]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        lines.append(
            (
                row.kernel,
                f"{row.density:.3f}",
                f"{row.median * 1e3:.1f}",
                f"{row.iqr * 1e3:.1f}",
                str(len(row.seconds)),
                ratio,
                f"{row.error:.1e}",
                "yes" if row.match else "NO",
            )
        )
    print(table(lines))
    print(
        "\nx dense: median over the rounds of the time divided by that of "
        "F.scaled_dot_product_attention just before;\nmax error: against the reference, as a share "
        "of its largest number. No ratio is given for a kernel that does not match."
    )
