"""`sparsediff bench`: how fast the kernels are on this machine, and whether they are right."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

SCHEMA = "sparsediff.bench/1"
DENSITIES = "0.1,0.2,0.3,0.5,1.0"
SHAPE, BLOCK, ROUNDS = "1x8x4096x64", 64, 7


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    from sparsediff.cli import bench_gain, bench_gpu, bench_rank, bench_transformer

    p = commands.add_parser(
        "bench",
        help="time the attention kernels against dense attention",
        description="Random self-attention: every usable backend at several densities and the block "
        "mass, each in turns with dense attention, each checked. On a CPU one shape against the "
        "reference, on a GPU a table of shapes against float64. Exit code 1 when a kernel does not "
        "match.",
    )
    p.add_argument("--kernel", action="store_true", help="measure the kernels")
    p.add_argument("--shape", help=f"batch x heads x tokens x dim; on a CPU {SHAPE} by default")
    p.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: float32 on a CPU, bfloat16 on a GPU",
    )
    p.add_argument("--densities", default=DENSITIES, help="default: %(default)s")
    p.add_argument(
        "--block-size",
        help=f"tokens, or query tokens x key tokens; default: {BLOCK} on a CPU, 128x64 on a GPU",
    )
    p.add_argument("--backends", metavar="NAMES", help="measure only these, such as cpu,gather")
    p.add_argument("--repeat", type=int, help=f"timed rounds; default: {ROUNDS}, on a GPU up to 15")
    p.add_argument("--device", default="cpu", help="default: %(default)s")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    bench_rank.add_arguments(p)
    bench_gpu.add_arguments(p)
    bench_transformer.add_arguments(p)
    bench_gain.add_arguments(p)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError for a bad shape or density."""
    if args.gain:
        from sparsediff.cli import bench_gain

        return bench_gain.run(args)
    if "torch" not in sys.modules:
        # Threads that spin while they wait make the many short calls of a kernel look slow.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from sparsediff.kernels import SparseError

    if args.transformer:
        from sparsediff.cli import bench_transformer

        args.block_size = _square(args.block_size)
        args.repeat = ROUNDS if args.repeat is None else args.repeat
        return bench_transformer.run(args)
    if args.rank:
        from sparsediff.cli import bench_rank

        return bench_rank.run(args)
    if not args.kernel:
        raise SparseError(
            "There is nothing to measure; give --kernel, --transformer NAME, --rank or --gain."
        )
    if args.device.startswith("cuda"):
        from sparsediff.cli import bench_gpu

        return bench_gpu.run(args)
    return _run_cpu(args)


def _run_cpu(args: argparse.Namespace) -> int:
    import torch

    from sparsediff import bench

    case = bench.BenchCase.parse(
        args.shape or SHAPE,
        block=_square(args.block_size),
        dtype=getattr(torch, args.dtype or "float32"),
        device=args.device,
        repeat=ROUNDS if args.repeat is None else args.repeat,
    )
    named = args.backends.split(",") if args.backends else []
    rows = []
    for row in bench.measure_kernels(case, numbers(args.densities), named):
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


def numbers(text: str) -> list[float]:
    """The densities of a list such as "0.1,0.2"; raises SparseError for anything else."""
    from sparsediff.kernels import SparseError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SparseError(
            f"--densities {text!r} is not a list of numbers; give it like {DENSITIES}."
        ) from None


def block_size(text: str) -> tuple[int, int]:
    """(query tokens, key tokens) of "64" or "128x64"; raises SparseError for anything else."""
    from sparsediff.kernels import SparseError

    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SparseError(f"--block-size {text!r} is not a block; give it like 64 or 128x64.")
    return int(parts[0]), int(parts[-1])


def _square(text: str | None) -> int:
    """The tokens of a square block, BLOCK where none is given."""
    from sparsediff.kernels import SparseError

    rows, columns = block_size(text or str(BLOCK))
    if rows != columns:
        raise SparseError(
            f"--block-size {text}: blocks are square here; give one number, such as {columns}."
        )
    return rows


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
