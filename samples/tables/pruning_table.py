"""The table of pruning criteria, from the rows that are there and their times.

python samples/tables/pruning_table.py --missing | xargs -P 2 -L 1 env OMP_WAIT_POLICY=PASSIVE
OMP_WAIT_POLICY=PASSIVE python samples/tables/pruning_time.py
python samples/tables/pruning_table.py
python samples/tables/pruning_table.py --samples 2 --output /tmp/page.md   # first samples of rows

The page tells how long its rows took.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_figures import model_figures, times_figures  # noqa: E402
from pruning_masks import Row  # noqa: E402
from pruning_models import MODELS, SampleModel  # noqa: E402
from pruning_page import page  # noqa: E402
from pruning_picture import picture  # noqa: E402
from pruning_rows import FOLDER  # noqa: E402
from pruning_rows_found import Facts, Key, commands_of, expected, missing, rows_found  # noqa: E402
from pruning_time import FILE  # noqa: E402

from sparsediff.environment import versions  # noqa: E402

SCHEMA = "sparsediff.pruning/1"
OUTPUT = Path("docs/benchmarks/pruning.md")


def figures_of(sample: SampleModel, found: Mapping[Key, Facts], folder: Path) -> dict[str, Any]:
    """Everything that the page shows of one model, JSON-ready."""
    row = next(iter(found.values()), None)
    path = folder / FILE
    timed = json.loads(path.read_text())["models"].get(sample.name) if path.exists() else None
    if timed and row and timed["weights"] != row["weights"]:
        raise ValueError(
            f"Found times of other weights of {sample.name} than its rows in {path}; time it again."
        )
    names = [
        Row(model=sample, criterion=criterion, ratio=ratio, seed=seed).name
        for criterion, ratio, seed in missing(sample, found)
    ]
    return {
        "noun": sample.noun,
        "samples": sample.samples,
        "seeds": sample.seeds,
        "call": row["call"] if row else sample.call(),
        "clean": row["loss"]["samples"] if row else sample.clean,
        "noise": row["loss"]["times"] if row else None,
        "weights": row["weights"] if row else None,
        **model_figures(found),
        "expected": len(expected(sample)),
        "missing": names,
        "times": times_figures(timed) if timed else [],
        "machine": timed["machine"] if timed else None,
        "time_command": timed["command"] if timed else None,
    }


def document(
    samples: Mapping[str, SampleModel], folder: Path, command: str
) -> tuple[dict[str, Any], dict[str, list[Key]]]:
    """All figures, and the rows that they are of by model."""
    found = {name: rows_found(sample, folder) for name, sample in samples.items()}
    figures = {name: figures_of(samples[name], rows, folder) for name, rows in found.items()}
    told = {"schema": SCHEMA, "command": command, "versions": versions(), "models": figures}
    return told, {name: list(rows) for name, rows in found.items()}


def main() -> None:
    """Write the page, its figures as JSON and its picture beside it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, default=FOLDER)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="page; .json and .png go beside it"
    )
    parser.add_argument("--samples", type=int, help="of a row; fewer are enough then")
    parser.add_argument("--missing", action="store_true", help="print the commands of other rows")
    args = parser.parse_args()
    samples = {
        name: replace(sample, samples=args.samples or sample.samples)
        for name, sample in MODELS.items()
    }
    if args.missing:
        for sample in reversed(samples.values()):  # the longest rows first
            keys = missing(sample, rows_found(sample, args.rows))
            for command in commands_of(sample, keys, args.rows):
                print(command)
        return
    command = shlex.join(["python", "samples/tables/pruning_table.py", *sys.argv[1:]])
    found, rows = document(samples, args.rows, command)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    drawn, image = picture(rows, args.rows), args.output.with_suffix(".png")
    if drawn:
        drawn.save(image, optimize=True)
    args.output.write_text(page(found, image=image.name if drawn else None))


if __name__ == "__main__":
    main()
