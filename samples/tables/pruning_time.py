"""Time the cut models of the pruning table against the whole ones, in pairs of turns.

OMP_WAIT_POLICY=PASSIVE python samples/tables/pruning_time.py            # on a machine otherwise idle
OMP_WAIT_POLICY=PASSIVE python samples/tables/pruning_time.py shapes-unet --runs 3 --threads 1

A call is what the pipeline's first step asks of its model. The whole model and one cut from it run one
after the other, so that a slow spell meets both; the whole model against itself shows what chance does.
About 7 minutes of a core for both models, nearly all of it shapes-wan (about a second a call).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_masks import Loaded, Row  # noqa: E402
from pruning_models import CRITERIA, MODELS, RATIOS, SampleModel  # noqa: E402
from pruning_rows import FOLDER, WHOLE  # noqa: E402
from row_files import replaced  # noqa: E402

from sparsediff.bench.machine import machine  # noqa: E402
from sparsediff.environment import versions  # noqa: E402
from sparsediff.kernels.turns import Turns  # noqa: E402
from sparsediff.prune.masks import Masks  # noqa: E402

SCHEMA = "sparsediff.pruning-times/1"
FILE = "times.json"
POLICY = "OMP_WAIT_POLICY"


def rows_to_time(sample: SampleModel, folder: Path, seed: int) -> list[Row]:
    """The rows of a seed whose masks are there."""
    rows = [
        Row(model=sample, criterion=criterion, ratio=ratio, seed=seed)
        for ratio in RATIOS
        for criterion in CRITERIA
    ]
    return [row for row in rows if row.masks_file(folder).exists()]


def cut_model(row: Row, loaded: Loaded, folder: Path) -> nn.Module:
    """The model of a row; raises ValueError where its masks are of other weights."""
    facts = json.loads((folder / f"{row.name}.json").read_text())
    if facts["weights"] != loaded.weights:
        raise ValueError(
            f"Found {row.name} made of other weights than {row.model.folder} has now; make it again."
        )
    return loaded.cut(Masks.load(row.masks_file(folder)))


def seconds_of(whole: nn.Module, cut: nn.Module, batch: dict[str, Any], runs: int) -> Any:
    """Seconds of both models' calls in every round, the whole model's first."""

    @torch.no_grad()
    def call(model: nn.Module) -> None:
        model(**batch)

    turns = Turns(device=torch.device("cpu"), most=runs, enough=runs, seconds=float("inf"))
    return turns.rounds([lambda: call(whole), lambda: call(cut)])


def times_of(sample: SampleModel, folder: Path, seed: int, runs: int) -> dict[str, Any]:
    """Rounds by the name of the row; that of the whole model is against itself."""
    loaded = Loaded.of(sample)
    found = {WHOLE: {"rounds": seconds_of(loaded.model, loaded.model, loaded.batch, runs)}}
    whole = sum(weight.numel() for weight in loaded.model.parameters())
    for row in rows_to_time(sample, folder, seed):
        cut = cut_model(row, loaded, folder)
        found[row.name] = {
            "criterion": row.criterion,
            "ratio": row.ratio,
            "parameters": sum(weight.numel() for weight in cut.parameters()) / whole,
            "rounds": seconds_of(loaded.model, cut, loaded.batch, runs),
        }
        print(f"{row.name}: {len(found[row.name]['rounds'])} rounds", flush=True)
    return {"weights": loaded.weights, "seed": seed, "rows": found}


def main() -> None:
    """Write `<rows>/times.json`; models that are not timed now stay as they were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(MODELS)}; default all")
    parser.add_argument("--rows", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument("--runs", type=int, default=20, help="rounds of every pair")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(MODELS)):
        parser.error(f"{', '.join(unknown)}: no such model; choose from {', '.join(MODELS)}")
    if os.environ.get(POLICY) != "PASSIVE":  # read once, when torch is loaded
        parser.error(f"waiting threads would take the cores; start with {POLICY}=PASSIVE")
    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.rows / FILE
    document = json.loads(path.read_text()) if path.exists() else {"schema": SCHEMA, "models": {}}
    for name in args.names or MODELS:
        told = {
            "command": shlex.join(
                [f"{POLICY}=PASSIVE", "python", "samples/tables/pruning_time.py", *sys.argv[1:]]
            ),
            "machine": {**machine("cpu"), "load": round(os.getloadavg()[0], 1)},
            "versions": versions(),
        }
        document["models"][name] = told | times_of(MODELS[name], args.rows, args.seed, args.runs)
        text = json.dumps(document, indent=1) + "\n"
        replaced(path, lambda part, text=text: part.write_text(text))


if __name__ == "__main__":
    main()
