"""Make a row of the pruning table, or one of every ratio; interrupted, it goes on where it was.

python samples/tables/pruning_rows.py shapes-unet ecodiff 0.2,0.4 0
python samples/tables/pruning_rows.py shapes-unet whole 0 0            # the model as it is
python samples/tables/pruning_rows.py shapes-unet magnitude 0.2 0 --samples 2 --steps 2 --clean 2

`python samples/tables/pruning_table.py --missing` prints the commands of rows not there yet.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_loss import loss_of  # noqa: E402
from pruning_masks import Loaded, Row, masks_of  # noqa: E402
from pruning_models import CHAINED, CRITERIA, MODELS, SampleModel  # noqa: E402
from pruning_samples import judged  # noqa: E402
from row_files import RowFiles  # noqa: E402
from row_samples import generate  # noqa: E402

from sparsediff.environment import device_name, versions  # noqa: E402
from sparsediff.prune.shares import given_up  # noqa: E402

FOLDER = Path("runs/pruning/rows")
SCHEMA = "sparsediff.pruning-row/1"
WHOLE = "whole"
SAME = ("schema", "weights", "settings", "call")
KEPT = ("loss", "times")


class Stopwatch:
    """Seconds since it was made: on the wall, and of this process on all processors."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both."""
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}


def told_of(row: Row, loaded: Loaded) -> dict[str, Any]:
    """What a row's file says before anything ran."""
    sample, criterion = row.model, row.criterion
    settings: dict[str, Any] = {"clean": sample.clean}
    command = []
    if criterion != WHOLE:
        settings |= sample.criterion(criterion, row.seed).to_dict()
        settings["prompts"] = len(sample.calibration_of(criterion))
        if criterion in CHAINED and sample.chain:
            settings["chain"] = dict(sample.chain)
        command = sample.command(criterion, row.ratio, row.seed)
    return {
        "schema": SCHEMA,
        "model": sample.name,
        "criterion": criterion,
        "ratio": row.ratio,
        "seed": row.seed,
        "command": shlex.join(["python", "samples/tables/pruning_rows.py", *sys.argv[1:]]),
        "same_masks": shlex.join(command),
        "device": device_name("cpu"),
        "versions": versions(),
        "weights": loaded.weights,
        "settings": settings,
        "call": sample.call(),
    }


def make(row: Row, loaded: Loaded, folder: Path) -> None:
    """Masks, loss, samples: what of them the row does not have yet."""
    files = RowFiles(folder, row.name, told_of(row, loaded), kept=KEPT, same=SAME)
    if not files.facts.exists():  # masks without facts may be of other settings
        row.masks_file(folder).unlink(missing_ok=True)
        files.note()
    watch = Stopwatch()
    made = row.criterion != WHOLE and not row.masks_file(folder).exists()
    masks = masks_of(row, loaded, folder)
    times = dict(files.told.get("times", {}))
    if made:
        times["masks"] = watch.read()
    share = given_up(loaded.model, loaded.structures, masks)
    files.note(given_up=share.to_dict(), times=times)
    print(f"{row.name}: given up {share}", flush=True)
    if "loss" not in files.told:
        watch = Stopwatch()
        loss = loss_of(row, loaded, masks)
        files.note(loss=loss, times={**times, "loss": watch.read()})
    smaller = loaded.model if row.criterion == WHOLE else loaded.cut(masks)
    loaded.pipe.register_modules(**{loaded.component: smaller})
    try:
        _generate(row, loaded.pipe, files)
    finally:
        loaded.pipe.register_modules(**{loaded.component: loaded.model})


def _generate(row: Row, pipe: Any, files: RowFiles) -> None:
    requests, call = row.model.requests(row.seed), row.model.call()
    while len(files.done) < len(requests):
        some = requests[len(files.done) : len(files.done) + row.model.batch]
        watch = Stopwatch()
        samples = generate(pipe, call, some)
        cases = [
            {"prompt": prompt, "seed": seed, **judged(row.model, prompt, sample)}
            for (prompt, seed), sample in zip(some, samples, strict=True)
        ]
        files.add(samples, {"samples": len(some), **watch.read(), "cases": cases})
        right = sum(case["right"] for case in cases)
        print(f"{row.name}: {len(files.done)} of {len(requests)}, {right} right", flush=True)


def ratios_of(text: str) -> tuple[float, ...]:
    """The ratios of an argument such as "0.2,0.4"."""
    return tuple(float(part) for part in text.split(","))


def sample_of(args: argparse.Namespace) -> SampleModel:
    """The model with what the flags shorten."""
    sample = MODELS[args.model]
    names = ("samples", "batch", "steps", "clean")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.iterations is not None:
        given["learning"] = {**sample.learning, "iterations": args.iterations}
    if args.limit is not None:
        given["limits"] = {name: min(args.limit, most) for name, most in sample.limits.items()}
    return replace(sample, **given)


def main() -> None:
    """Write `<out>/<model>-<criterion>-<ratio>-<seed>.json`, its masks and its samples."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("criterion", choices=(*CRITERIA, WHOLE))
    parser.add_argument("ratio", type=ratios_of, help="share of the units given up; 0 of whole")
    parser.add_argument("seed", type=int, help="of the masks and of the noise of samples and loss")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--samples", type=int, help="prompts that are judged")
    parser.add_argument("--batch", type=int, help="samples at a time")
    parser.add_argument("--steps", type=int, help="of samples, calibration and EcoDiff's chain")
    parser.add_argument("--clean", type=int, help="rendered samples of the denoising loss")
    parser.add_argument("--limit", type=int, help="prompts of calibration, at most")
    parser.add_argument("--iterations", type=int, help="of EcoDiff")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    if (args.ratio != (0.0,)) if args.criterion == WHOLE else not all(args.ratio):
        parser.error(f"{WHOLE} gives up nothing, ratio 0, and the criteria something")
    torch.set_num_threads(args.threads)
    sample = sample_of(args)
    loaded = Loaded.of(sample)
    for ratio in args.ratio:
        row = Row(model=sample, criterion=args.criterion, ratio=ratio, seed=args.seed)
        make(row, loaded, args.out)


if __name__ == "__main__":
    main()
