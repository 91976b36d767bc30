"""Generate the videos of one row of the distillation table; interrupted, it goes on where it was.

python samples/distill_rows.py teacher-50
python samples/distill_rows.py teacher-50 --diversity   # a few prompts, several seeds each
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsediff.environment import versions

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import ROWS, CallCounter, Students, load, what_ran  # noqa: E402

PROMPTS = HERE / "prompts.txt"
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
DIVERSITY_SEEDS, FIRST_DIVERSITY_SEED = 6, 2000
Request = tuple[str, int]  # prompt and seed


def generate(pipe: WanPipeline, call: dict[str, Any], requests: list[Request]) -> Tensor:
    """Videos uint8 `[requests, frames, 3, h, w]`; one seed each, whatever the batch."""
    prompts = [prompt for prompt, _ in requests]
    generators = [torch.Generator().manual_seed(seed) for _, seed in requests]
    with torch.no_grad():
        frames = pipe(prompt=prompts, generator=generators, output_type="pt", **call).frames
    return (frames.float().clamp(0, 1) * 255).round().byte()


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


class RowFiles:
    """The videos of a row and the facts of the runs that made them; always whole, killed or not."""

    def __init__(self, folder: Path, name: str, told: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.videos, self.facts = folder / f"{name}.safetensors", folder / f"{name}.json"
        empty = torch.empty(0, dtype=torch.uint8)
        self.done = load_file(self.videos)["videos"] if self.videos.exists() else empty
        known = json.loads(self.facts.read_text()) if self.facts.exists() else {"runs": {}}
        self.told = {"schema": SCHEMA, **told, "runs": known["runs"]}

    def add(self, videos: Tensor, run: dict[str, Any]) -> None:
        """Append the videos of one run, and its facts under the number of its first video."""
        self.told["runs"][str(len(self.done))] = run
        self.done = (torch.cat([self.done, videos]) if len(self.done) else videos).contiguous()
        _replace(self.facts, lambda path: path.write_text(json.dumps(self.told, indent=1) + "\n"))
        _replace(self.videos, lambda path: save_file({"videos": self.done}, path))


def _replace(path: Path, write: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)


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
        "row": args.row,
        "command": shlex.join(["python", "samples/distill_rows.py", *sys.argv[1:]]),
        "versions": versions(),
    }
    files = RowFiles(args.out, name_of(args.row, diversity=args.diversity), told)
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
