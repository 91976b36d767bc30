"""Time the rows of the distillation table: one video of each in turns, on a machine otherwise idle.

python samples/tables/distill_time.py --runs 5
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sparsediff.bench.machine import machine
from sparsediff.environment import versions
from sparsediff.generation import GenerationRecipe
from sparsediff.model_files import ModelFiles
from sparsediff.timed_run import Runner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import MODEL, ROWS, CallCounter, Students, load, what_ran  # noqa: E402
from distill_rows import FOLDER, add_students, students_of  # noqa: E402

SCHEMA = "sparsediff.distill-times/1"
PROMPT, SEED = "a red circle moving right on a dark background", 3000


def runner_of(name: str, students: Students) -> Runner:
    """The pipeline of a row with one prompt and seed."""
    pipe, call = load(ROWS[name], students)
    recipe = GenerationRecipe.of(ModelFiles(name=str(MODEL))).with_call(**call)
    return Runner(pipe, recipe, prompt=PROMPT, seed=SEED, device="cpu")


def one_run(runner: Runner, name: str) -> dict[str, Any]:
    """Seconds from prompt to pixels and of the denoising loop in it, and what ran."""
    counter = CallCounter(runner.pipe.transformer)
    start = time.perf_counter()
    loop = runner.run().seconds
    whole = time.perf_counter() - start
    counter.hook.remove()
    ran = what_ran(runner.pipe, ROWS[name])
    return {"whole": whole, "loop": loop, "calls": counter.videos, "density": ran["density"]}


def times(runners: dict[str, Runner], runs: int) -> dict[str, list[dict[str, Any]]]:
    """Rounds of one run of each row, so that a slow spell meets all.

    A run of each before is not counted; one step of the teacher loads and compiles as much as all.
    """
    for name, runner in runners.items():
        runner.run(steps=None if ROWS[name].student else 1)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    for number in range(runs):
        for name, runner in runners.items():
            found[name].append(one_run(runner, name))
            print(f"round {number + 1}: {name}, {found[name][-1]['whole']:.1f} s", flush=True)
    return found


def main() -> None:
    """Write `<rows>/times.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(ROWS)}; default all")
    parser.add_argument("--rows", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    add_students(parser)
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(ROWS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no row of that name; choose from {', '.join(ROWS)}")
    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.names or list(ROWS)
    load_before = os.getloadavg()[0]
    runners = {name: runner_of(name, students_of(args)) for name in names}
    document = {
        "schema": SCHEMA,
        "command": shlex.join(["python", "samples/tables/distill_time.py", *sys.argv[1:]]),
        "machine": {**machine("cpu"), "load": round(load_before, 1)},
        "versions": versions(),
        "rows": times(runners, args.runs),
    }
    args.rows.mkdir(parents=True, exist_ok=True)
    (args.rows / "times.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
