"""Generate the videos of one row of the distillation table; interrupted, it goes on where it was.

python samples/tables/distill_rows.py teacher-50
python samples/tables/distill_rows.py teacher-50 --diversity   # a few prompts, several seeds each
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from sparsediff.environment import versions

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import ROWS, CallCounter, Students, load, what_ran  # noqa: E402
from row_files import RowFiles  # noqa: E402
from row_samples import Request, generate  # noqa: E402

PROMPTS = HERE.parent / "prompts.txt"
FOLDER = Path("runs/distill/rows")
SCHEMA = "sparsediff.distill-row/1"
FIRST_SEED = 1000
# What a prompt leaves open differs: where and how large, the row or column, the whole path.
DIVERSITY_PROMPTS = (
    "a blue triangle standing still on a light background",
    "a red circle moving right on a light background",
    "a green cross moving up on a dark background",
    "a pink ring bouncing on a dark background",
)
DIVERSITY_SEEDS, FIRST_DIVERSITY_SEED = 4, 2000


def requests_of(*, diversity: bool) -> list[Request]:
    """What to generate; prompt n of the file has the seed FIRST_SEED + n."""
    if not diversity:
        prompts = [line for line in PROMPTS.read_text().splitlines() if line]
        return [(prompt, FIRST_SEED + n) for n, prompt in enumerate(prompts)]
    repeated = [prompt for prompt in DIVERSITY_PROMPTS for _ in range(DIVERSITY_SEEDS)]
    return [(prompt, FIRST_DIVERSITY_SEED + n) for n, prompt in enumerate(repeated)]


def name_of(row: str, *, diversity: bool) -> str:
    """Name of the files of a row, without the ending."""
    return f"{row}-seeds" if diversity else row


def main() -> None:
    """Write `<out>/<row>.safetensors` with the videos, and `<row>.json` with what ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--diversity", action="store_true", help="few prompts, several seeds each")
    parser.add_argument("--batch", type=int, default=4, help="videos at a time")
    add_students(parser)
    args = parser.parse_args()
    row, requests = ROWS[args.row], requests_of(diversity=args.diversity)
    told = {
        "schema": SCHEMA,
        "row": args.row,
        "command": shlex.join(["python", "samples/tables/distill_rows.py", *sys.argv[1:]]),
        "versions": versions(),
    }
    files = RowFiles(args.out, name_of(args.row, diversity=args.diversity), told, tensor="videos")
    pipe, call = load(row, students_of(args))
    counter = CallCounter(pipe.transformer)
    while len(files.done) < len(requests):
        some = requests[len(files.done) : len(files.done) + args.batch]
        start, calls = time.monotonic(), counter.videos
        videos = generate(pipe, call, some)
        seconds, each = time.monotonic() - start, (counter.videos - calls) / len(some)
        facts = {"videos": len(some), "calls_per_video": each, **what_ran(pipe, row)}
        files.add(videos, {**facts, "call": call})
        print(f"{files.name}: {len(files.done)} of {len(requests)}, {seconds:.0f} s", flush=True)


def add_students(parser: argparse.ArgumentParser) -> None:
    """The flags that say where the students are."""
    for kind in ("dense", "sparse"):
        folder = f"runs/distill/{kind}-student"
        parser.add_argument(
            f"--{kind}-student", type=Path, default=folder, help=f"(default: {folder})"
        )


def students_of(args: argparse.Namespace) -> Students:
    """Those folders, by kind."""
    return {"dense": args.dense_student, "sparse": args.sparse_student}


if __name__ == "__main__":
    main()
