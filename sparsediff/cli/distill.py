"""`sparsediff distill`: a few-step student with sparse attention, trained from prompts alone."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsediff.cli.distill_arguments import add_arguments, method_fields, settings_options
from sparsediff.cli.distill_inputs import check_flags, encode, objective_of, prompts_of
from sparsediff.cli.public_words import public_command, public_path

if TYPE_CHECKING:
    from sparsediff.distill.training.settings import DistillSettings
    from sparsediff.distill.training.trainer import Figures
    from sparsediff.generation import GenerationRecipe

SCHEMA = "sparsediff.distill/1"


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "distill",
        help="train a few-step student with sparse attention, from prompts alone",
        description="Trajectory distribution matching (Video-BLADE): the student learns to make in a "
        "few steps, without guidance and with sparse attention, what the teacher makes in many. "
        "Killed, it goes on with --resume_from_checkpoint latest. Several GPUs: start it with "
        "accelerate launch or torchrun.",
        epilog="example: sparsediff distill samples/models/shapes-wan "
        "--prompts samples/calibration.txt --steps 8 --method blade-asa --density 0.3 "
        "--out runs/student",
    )
    add_arguments(p)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    with contextlib.redirect_stdout(sys.stderr):
        found = _distill(args)
    if not found:
        return 0
    if args.json:
        print(json.dumps({"schema": SCHEMA, **found}, allow_nan=False))
    elif args.encode_to is not None:
        print(f"embeddings: {found['out']} ({found['prompts']} prompts)")
        print(
            f"next: sparsediff distill {args.model} --prompts {found['out']} --out {args.out}, with "
            f"the same --size and --guidance"
        )
    else:
        print(f"student: {found['out']} ({found['iterations']} iterations)")
        print(f"next: sparsediff.load_student(pipe, {found['out']!r}), see docs/distillation.md")
    return 0


def _distill(args: argparse.Namespace) -> dict[str, Any]:
    """Train and save; empty in processes that are not the main one."""
    from sparsediff.distill.student.student_card import CARD
    from sparsediff.distill.student.student_files import FILES
    from sparsediff.distill.training.acceleration import accelerator_for
    from sparsediff.distill.training.distillation import Distillation, check_folder
    from sparsediff.distill.training.earlier_student import check_earlier
    from sparsediff.distill.training.setup import sparse_method
    from sparsediff.distill.training.training_start import named
    from sparsediff.generation import GenerationRecipe
    from sparsediff.loading import hide_library_bars, load_pipeline, resolve_device, resolve_dtype
    from sparsediff.model_files import ModelFiles
    from sparsediff.output_folder import require_free, require_writable

    out = Path(args.out)
    require_writable(out, advice="Choose another --out.")
    require_free(out, FILES, mine=CARD)
    prompts = prompts_of(args)
    hide_library_bars()
    files = ModelFiles(name=args.model)
    recipe = GenerationRecipe.of(files)
    settings = _settings(args, recipe)
    sparse_method(settings)
    check_flags(args)
    check_folder(out, settings, named(prompts), args.resume_from_checkpoint)
    if args.start_from is not None:
        check_earlier(Path(args.start_from), settings)
    device = resolve_device(args.device)
    accelerator = accelerator_for(
        settings, out / "training", cpu=device == "cpu", report_to=args.report_to
    )
    # All weights can only be trained as float32; a LoRA's own always are.
    wanted = args.dtype or ("float32" if settings.lora_rank == 0 else None)
    dtype = resolve_dtype(wanted, recipe, device)
    pipe = load_pipeline(files, dtype=dtype, device=str(accelerator.device))
    if args.encode_to is not None:
        return encode(pipe, prompts, settings, Path(args.encode_to))
    training = Distillation(
        pipe,
        prompts,
        settings,
        accelerator,
        out,
        resume=args.resume_from_checkpoint,
        start_from=None if args.start_from is None else Path(args.start_from),
        fps=recipe.fps,
        objective=objective_of(args, settings, accelerator),
        tell=_Teller(settings, quiet=args.quiet or not accelerator.is_main_process),
    )
    accelerator.init_trackers("sparsediff", config=_told(settings))
    training.run()
    training.save(model=public_path(args.model), command=public_command(args.argv))
    accelerator.wait_for_everyone()
    # What talks to the other processes goes while they are there: a wrapped model that outlives the
    # process group may wait for it for ever.
    del training
    accelerator.free_memory()
    accelerator.end_training()
    if not accelerator.is_main_process:
        return {}
    return {"out": str(out), "iterations": settings.iterations, "settings": settings.to_dict()}


def _settings(args: argparse.Namespace, recipe: GenerationRecipe) -> DistillSettings:
    from sparsediff.distill.training.settings import DistillSettings
    from sparsediff.token_size import parse_size

    call = dict(recipe.call)
    call.pop("num_inference_steps", None)
    if args.size is not None:
        width, height, frames = parse_size(args.size)
        call |= {"width": width, "height": height}
        if frames > 1 or ("num_frames" in call and args.size.lower().count("x") == 2):
            call["num_frames"] = frames
    return DistillSettings(call=call, method=method_fields(args), **settings_options(args))


def _told(settings: DistillSettings) -> dict[str, Any]:
    """The settings that every tracker takes: numbers and words."""
    values = settings.to_dict().items()
    return {name: value for name, value in values if isinstance(value, bool | int | float | str)}


class _Teller:
    """Says every iteration's figures on stderr."""

    def __init__(self, settings: DistillSettings, *, quiet: bool) -> None:
        self.last, self.quiet = settings.iterations, quiet

    def __call__(self, figures: Figures, seconds: float) -> None:
        """Tell one iteration."""
        if not self.quiet:
            losses = ", ".join(f"{role} {loss:.4f}" for role, loss in figures.losses.items())
            print(
                f"iteration {figures.iteration} of {self.last}: {losses}, {seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
