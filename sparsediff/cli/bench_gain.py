"""`sparsediff bench --gain`: are the gate's predictions true on this machine?"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

SCHEMA = "sparsediff.bench-gain/1"
TOKENS, DENSITIES, STEPS, REPEAT = "256,512,1024,2048,4096", "0.1,0.25,0.5", 20, 3
HEAD = ("what", "tokens", "density", "predicted", "measured", "IQR", "n", "error", "decision")
PAGE = "gain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this benchmark takes; the others are those of `bench`."""
    group = parser.add_argument_group(
        "the gain gate",
        "Sparse time over dense time as the gate predicts it, beside runs that are timed: the "
        "attention of a layer over --steps, and with --model its whole denoising loop. --shape gives "
        "heads and head dim, its tokens are replaced by --tokens. Exit code 1 when a prediction is off "
        "by more than a fifth.",
    )
    group.add_argument("--gain", action="store_true", help="check the gate's predictions")
    group.add_argument("--tokens", default=TOKENS, help="default: %(default)s")
    group.add_argument("--model", help="pipeline folder or Hub id, for whole runs")
    group.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this process's time on the processor: for a CPU that others share, with "
        "OMP_NUM_THREADS=1",
    )
    group.add_argument("--sizes", metavar="WxHxF,...", help="default: the size of the model")


def run(args: argparse.Namespace) -> int:
    """Measure, print and write; raises SparseError for bad input."""
    rows: list[Any] = []
    about = _machine(args)
    command = shlex.join(["sparsediff", *getattr(args, "argv", ["bench", "--gain"])])
    for row in _rows(args):
        rows.append(row)
        print(" ".join(cells(row)), file=sys.stderr)
        if args.output:  # after every row: a run takes minutes, and what it found stays
            _write(Path(args.output), rows, about, command)
    print(json.dumps(_document(rows, about), allow_nan=False) if args.json else _text(rows, about))
    return 0 if all(row.met for row in rows) else 1


def _document(rows: list[Any], about: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "machine": about, "rows": [row.to_dict() for row in rows]}


def _write(folder: Path, rows: list[Any], about: dict[str, Any], command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(_document(rows, about), indent=1, allow_nan=False) + "\n"
    (folder / f"{PAGE}.json").write_text(plain, encoding="utf-8")
    (folder / f"{PAGE}.md").write_text(page(rows, about, command), encoding="utf-8")


def _machine(args: argparse.Namespace) -> dict[str, str]:
    """What a time depends on besides the code."""
    from datetime import UTC, datetime

    import torch

    from sparsediff import environment

    return {
        "device": environment.device_name(args.device),
        "torch": torch.__version__,
        "clock": "this process's time on the processor" if args.cpu_time else "wall clock",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _rows(args: argparse.Namespace) -> Any:
    from time import perf_counter, process_time

    import torch

    from sparsediff.bench.case import BenchCase
    from sparsediff.cli.bench import SHAPE, block_size, numbers
    from sparsediff.gain.case import GainCase
    from sparsediff.gain.check import check_attention
    from sparsediff.gain.check_runs import check_runs
    from sparsediff.search import AdaSpa
    from sparsediff.token_size import parse_size

    shape = BenchCase.parse(args.shape or SHAPE)
    densities, block = numbers(args.densities), block_size(args.block_size or "64")[0]
    repeat = REPEAT if args.repeat is None else args.repeat
    clock = process_time if args.cpu_time else perf_counter
    cases = [
        GainCase(
            tokens=int(tokens),
            streams=shape.batch * shape.heads,
            head_dim=shape.dim,
            dtype=getattr(torch, args.dtype or "float32"),
            device=torch.device(args.device),
            block_size=block,
        )
        for tokens in numbers(args.tokens)
    ]
    methods = [AdaSpa(density=density, block_size=block) for density in densities]
    yield from check_attention(cases, methods, steps=args.steps, repeat=repeat, clock=clock)
    if args.model:
        sizes = [parse_size(size) for size in (args.sizes or "").split(",") if size]
        yield from check_runs(
            args.model, sizes, densities, device=args.device, repeat=repeat, clock=clock
        )


def cells(row: Any) -> tuple[str, ...]:
    """A row as text, in the order of `HEAD`."""
    decision = "sparse" if row.predicted < 1 else "dense"
    return (
        "attention" if row.kind == "attention" else row.shape,
        f"{row.tokens:,}",
        f"{row.density:.2f}",
        f"{row.predicted:.3f}",
        f"{row.ratio:.3f}",
        f"{row.iqr:.3f}",
        str(len(row.runs)),
        f"{row.error:+.0%}" + " !" * (not row.met),
        decision if row.right else f"{decision}, wrong",
    )


def _text(rows: list[Any], about: dict[str, Any]) -> str:
    from sparsediff.cli.table import table

    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    return f"{facts}\n\n{table([HEAD, *map(cells, rows)])}\n\n{summary(rows)}"


def summary(rows: list[Any]) -> str:
    """How many predictions are near enough, and the worst."""
    worst = max(rows, key=lambda row: abs(row.error))
    return (
        f"{sum(row.met for row in rows)} of {len(rows)} predictions within 20 %, "
        f"{sum(row.right for row in rows)} decisions right; the worst prediction is off by "
        f"{worst.error:+.0%}, at {worst.tokens:,} tokens and density {worst.density:.2f}."
    )


def page(rows: list[Any], about: dict[str, Any], command: str) -> str:
    """docs/benchmarks/gain.md."""
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    body = ["| " + " | ".join(line) + " |" for line in (HEAD, ("---",) * len(HEAD))]
    body += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n\n".join(
        [
            "# The gain gate against measured runs",
            f"{facts}.",
            f"```text\n$ {command}\n```",
            _METHOD,
            "\n".join(body),
            summary(rows) + "\n",
        ]
    )


_METHOD = """\
Each figure is sparse time over dense time: below 1 sparse attention pays. `predicted` is what the
gate says before a run, from kernels that it times on a problem of the run's shape within about a
second. `measured` is what n runs took, by their shortest times, because whatever interrupts a call on
a machine with other work only makes it longer: of one layer's attention in full size, dense and sparse
calls taking turns at every step (`attention`), or of a pipeline's denoising loop, dense and sparse
runs taking turns, gate off (the model's name). Both hold the search for the patterns. `IQR` is the
spread of the n ratios. `error` is the prediction over the measurement, less 1; `!` marks one beyond
20 %. `decision` is what the gate would have done, and whether that would have been the slower way."""
