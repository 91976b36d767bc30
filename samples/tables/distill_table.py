"""The table of the distilled model, from the videos of its rows and their times.

python samples/tables/distill_table.py
python samples/tables/distill_table.py --partial --output /tmp/page.md   # while rows are being made
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_distance import halves_distance, kernel_distance  # noqa: E402
from distill_features import CACHE, FeatureNetwork, feature_network, held_out_accuracy  # noqa: E402
from distill_figures import comparison, facts_of, row_of, times_of  # noqa: E402
from distill_measures import diversity, look, rendered  # noqa: E402
from distill_page import page  # noqa: E402
from distill_picture import picture  # noqa: E402
from distill_pipelines import ROWS  # noqa: E402
from distill_rows import (  # noqa: E402
    DIVERSITY_PROMPTS,
    DIVERSITY_SEEDS,
    FOLDER,
    name_of,
    requests_of,
)

from sparsediff.environment import versions  # noqa: E402

SCHEMA = "sparsediff.distillation/1"
REFERENCE, RENDERED = "teacher-50", "rendered"
PAIRS = (
    ("sparse-student", "teacher-50"),
    ("dense-student", "teacher-50"),
    ("sparse-student", "dense-student-sparse"),
    ("sparse-student", "dense-student"),
    ("dense-student-sparse", "dense-student"),
    ("dense-student", "teacher-10"),
    ("teacher-10", "teacher-50"),
)
OUTPUT = Path("docs/benchmarks/distillation.md")
CLIPS, OTHER_CLIPS, REPEATED_CLIPS = 41, 42, 43  # seeds of rendered clips


def videos_of(folder: Path, *, partial: bool) -> dict[str, Tensor]:
    """Videos by row, of those rows that are there; with `partial` as many as all of them have."""
    found = {
        name: load_file(path)["videos"]
        for name in ROWS
        if (path := folder / f"{name}.safetensors").exists()
    }
    if REFERENCE not in found:
        raise FileNotFoundError(
            f"Found no {REFERENCE}.safetensors in {folder}; everything is compared with it. Run "
            f"`python samples/tables/distill_rows.py {REFERENCE}` first."
        )
    least = min(map(len, found.values()))
    return {name: videos[:least] for name, videos in found.items()} if partial else found


def repeated(folder: Path, network: FeatureNetwork) -> dict[str, Any]:
    """Diversity by row, of the rows whose videos of several seeds are there and complete."""
    count = len(DIVERSITY_PROMPTS) * DIVERSITY_SEEDS
    prompts = [prompt for prompt, _ in requests_of(diversity=True)]
    sets = {RENDERED: rendered(prompts, REPEATED_CLIPS)}
    for name in ROWS:
        path = folder / f"{name_of(name, diversity=True)}.safetensors"
        if path.exists() and len(videos := load_file(path)["videos"]) == count:
            sets[name] = videos
    return {name: diversity(network, videos, DIVERSITY_SEEDS) for name, videos in sets.items()}


def document(
    folder: Path, network: FeatureNetwork, videos: dict[str, Tensor], command: str
) -> dict[str, Any]:
    """Everything that the page shows, JSON-ready."""
    prompts = [p for p, _ in requests_of(diversity=False)]
    prompts = prompts[: len(videos[REFERENCE])]
    clips = {
        name: rendered(prompts, seed) for name, seed in ((RENDERED, CLIPS), ("again", OTHER_CLIPS))
    }
    looks = {name: look(network, some, prompts) for name, some in {**videos, **clips}.items()}
    reference, again = looks[REFERENCE], looks.pop("again")
    rows = {
        name: {**row_of(seen, reference), **facts_of(folder, name)} for name, seen in looks.items()
    }
    for name, figures in repeated(folder, network).items():
        if name in rows:
            rows[name]["diversity"] = figures
    path = folder / "times.json"
    timed = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    for name, runs in timed["rows"].items():
        if name in rows and REFERENCE in timed["rows"]:
            rows[name]["times"] = times_of(runs, timed["rows"][REFERENCE])
    return {
        "schema": SCHEMA,
        "command": command,
        "versions": versions(),
        "time_command": timed.get("command"),
        "machine": timed.get("machine"),
        "prompts": len(prompts),
        "network": {
            "weights": sum(weight.numel() for weight in network.parameters()),
            "right": held_out_accuracy(network),
        },
        "rows": rows,
        "halves": halves_distance(reference.features).to_dict(),
        "drawn_again": kernel_distance(again.features, looks[RENDERED].features).to_dict(),
        "pairs": [
            {"ours": a, "others": b, **comparison(looks[a], looks[b], reference)}
            for a, b in PAIRS
            if a in looks and b in looks
        ],
    }


def main() -> None:
    """Write the page, its figures as JSON and its picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=FOLDER)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="page; .json and .png go beside it"
    )
    parser.add_argument("--features", type=Path, default=CACHE, help="where the network is kept")
    parser.add_argument("--partial", action="store_true", help="only prompts that all rows have")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums, whatever the machine
    command = shlex.join(["python", "samples/tables/distill_table.py", *sys.argv[1:]])
    videos = videos_of(args.rows, partial=args.partial)
    found = document(args.rows, feature_network(args.features), videos, command)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    image = args.output.with_suffix(".png")
    picture(videos).save(image, optimize=True)
    args.output.write_text(page(found, image=image.name))


if __name__ == "__main__":
    main()
