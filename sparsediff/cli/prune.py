"""`sparsediff prune`: heads, neurons or blocks that a model can lose, cut out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsediff.cli.prune_arguments import OPTIONS, RUN, START, add_arguments
from sparsediff.cli.public_words import public_command, public_path

if TYPE_CHECKING:
    from sparsediff.generation import GenerationRecipe
    from sparsediff.prune.criteria.criterion import Criterion
    from sparsediff.prune.pruning_result import PruningResult

REPORT, TRAINING = "pruning.html", "learning"


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "prune",
        help="cut out the heads and neurons that a model can lose",
        description="Score the heads, neurons or blocks of a pipeline's model, give up the least, cut "
        "them out and check that what is left computes what the masked model did. The result is a "
        "pipeline that diffusers loads, smaller and faster. --objective ecodiff learns the masks end "
        "to end; killed, it goes on with --resume.",
        epilog="example: sparsediff prune samples/models/shapes-wan --objective wanda "
        "--prompts samples/calibration.txt --limit 4 --ratio 0.2 --out runs/pruned",
    )
    add_arguments(p)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    with contextlib.redirect_stdout(sys.stderr):
        result = _prune(args)
    if args.json:
        print(json.dumps({**result.to_dict(), "out": args.out}, allow_nan=False))
        return 0
    print(f"given up: {result.pruning.given_up}")
    print(f"pruned: {args.out}")
    print(f"report: {Path(args.out) / REPORT}")
    return 0


def _prune(args: argparse.Namespace) -> PruningResult:
    from sparsediff.cli.prune_run import prune_model, prune_pipeline
    from sparsediff.output_folder import require_writable
    from sparsediff.prune.model_folder import is_model_folder
    from sparsediff.prune.pruning import PruneSettings

    args.out = str(Path(args.out).expanduser())
    require_writable(Path(args.out), advice="Choose another --out.")
    criterion = _criterion(args)
    settings = PruneSettings(
        criterion=criterion,
        target=args.target,
        ratio=args.ratio,
        scope=args.scope,
        heads_multiple_of=args.heads_multiple_of,
        least=args.least,
    )
    alone = is_model_folder(Path(args.model).expanduser())
    result = (prune_model if alone else prune_pipeline)(args, settings)
    return _reported(args, result)


def _criterion(args: argparse.Namespace) -> Criterion:
    """The objective with the options that were given; none is passed over in silence."""
    from sparsediff.kernels.errors import SparseError
    from sparsediff.prune.criteria.registry import criterion_of

    own = OPTIONS[args.objective]
    known = {name for names in OPTIONS.values() for name in names}
    elsewhere = {"steps", "guidance", "seed"} if args.samples else set()
    for name in sorted(known - set(own) - set(RUN.get(args.objective, ())) - elsewhere):
        if getattr(args, name) is not None:
            users = ", ".join(o for o in OPTIONS if name in (*OPTIONS[o], *RUN.get(o, ())))
            raise SparseError(
                f"--{name.replace('_', '-')} changes nothing for --objective {args.objective}; it is "
                f"of {users}."
            )
    for name in ("samples", "repeat", "limit"):
        least = 0 if name == "samples" else 1
        if getattr(args, name) < least:
            raise SparseError(
                f"--{name} {getattr(args, name)}: needs a whole number from {least} on."
            )
    if args.resume is not None and args.objective != "ecodiff":
        raise SparseError(f"--resume: {args.objective} learns nothing that it could go on with.")
    given = {name: getattr(args, name) for name in own if getattr(args, name) is not None}
    if args.objective == "ecodiff" and args.start != "fisher":
        for name in sorted(given.keys() & {*START}):
            raise SparseError(
                f"--{name.replace('_', '-')} changes nothing where all gates start alike; add "
                f"--start fisher."
            )
    criterion = criterion_of(args.objective, given)
    if criterion.needs_prompts and args.prompts is None:
        raise SparseError(
            f"--objective {args.objective} looks at the model while its pipeline runs; needs "
            f"--prompts FILE. magnitude, random and owl --base magnitude need none."
        )
    if not criterion.needs_prompts and args.prompts is not None and not args.samples:
        raise SparseError(
            f"--prompts: {args.objective} runs nothing, and --samples 0 shows nothing."
        )
    return criterion


def recipe_of(args: argparse.Namespace, recipe: GenerationRecipe) -> GenerationRecipe:
    """The model's own recipe with the size and steps that were asked for."""
    from sparsediff.token_size import parse_size

    call: dict[str, Any] = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    if args.size is not None:
        width, height, frames = parse_size(args.size)
        call |= {"width": width, "height": height}
        if frames > 1 or "num_frames" in recipe.call:
            call["num_frames"] = frames
    return recipe.with_call(**call)


def _reported(args: argparse.Namespace, result: PruningResult) -> PruningResult:
    from dataclasses import replace

    from sparsediff.environment import versions
    from sparsediff.kernels.errors import SparseError
    from sparsediff.prune.pruning_result import read_curve
    from sparsediff.report_pages.prune_page import prune_page

    log = Path(args.out) / TRAINING / "log.jsonl"
    result = replace(
        result,
        model=public_path(args.model),
        command=public_command(args.argv),
        versions=versions(),
        # A folder may hold what was learnt by an earlier run with another objective.
        curve=read_curve(log) if result.settings.criterion.learns else [],
    )
    page = Path(args.out) / REPORT
    try:
        page.write_text(prune_page(result), encoding="utf-8")
    except OSError as error:
        raise SparseError(f"{page} cannot be written: {error.strerror or error}.") from error
    return result
