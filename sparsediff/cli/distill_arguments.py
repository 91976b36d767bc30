"""The arguments of `sparsediff distill`; importing this imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sparsediff.cli.flags import flags_of, folder
from sparsediff.cli.generate_arguments import DTYPE_NAMES

# Written out because the packages that know them import torch; a test compares them.
METHODS = ("blade-asa", "window", "random", "none")
OBJECTIVES = ("tdm", "imitation", "mmd")
SPARSE_IN = ("both", "student", "none")
SCHEDULES = ("constant", "constant_with_warmup", "cosine", "linear")
PRECISIONS = ("no", "fp16", "bf16")
LIMIT = 10_000

# Flags that are fields of the settings under the same name.
SETTINGS = (
    *("steps", "guidance", "student_guidance", "shift", "sparse_in", "objective"),
    *("teacher_steps", "iterations", "batch"),
    *("accumulation", "segments", "fake_updates", "learning_rate", "fake_learning_rate"),
    *("schedule", "warmup_iterations", "clip", "average", "churn", "separate", "huber"),
    *("normalise", "nearness", "lora_rank", "lora_alpha", "lora_targets", "precision"),
    *("gradient_checkpointing", "shard", "seed", "checkpoint_every", "keep_checkpoints"),
    *("validate_every", "validation_prompts"),
)
METHOD_OPTIONS = ("density", "block_size", "energy", "min_keep", "sample_tokens", "global_window")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add every argument, in groups; each flag is also understood with underscores, as in diffusers."""
    p.add_argument("model", metavar="MODEL", help="pipeline folder or Hub id: the teacher")
    flag = flags_of(p)
    flag(
        "prompts",
        metavar="FILE",
        required=True,
        help="prompts, one a line, or their embeddings (.safetensors of --encode-to)",
    )
    flag(
        "limit", type=int, default=LIMIT, metavar="N", help="use the first N prompts (%(default)s)"
    )
    out = "folder for the student and its training"
    flag("out", type=folder, metavar="DIR", required=True, help=out)
    flag("encode_to", metavar="FILE", help="only write the prompts' embeddings, to train on later")
    flag(
        "resume_from_checkpoint", metavar="NAME", help="latest, or the name of a checkpoint in DIR"
    )
    flag("start_from", metavar="DIR", help="folder of a student to begin with")
    _add_student(flags_of(p.add_argument_group("student")))
    _add_training(flags_of(p.add_argument_group("training")))
    _add_objective(flags_of(p.add_argument_group("objective (TDM, Video-BLADE §3.2)")))
    _add_run(flags_of(p.add_argument_group("run")))


def _add_student(flag: Callable[..., None]) -> None:
    flag("steps", type=int, metavar="K", help="denoising steps (8)")
    flag("size", metavar="WxHxF", help="pixels and frames (default: generation.json)")
    flag("guidance", type=float, help="the teacher's guidance scale, which the student learns")
    flag(
        "student_guidance",
        type=float,
        help="guidance scale the student is run with; 1 for none (1)",
    )
    flag("shift", type=float, help="shift of the student's noise levels (the pipeline's)")
    flag("method", choices=METHODS, default="blade-asa", help="its attention (%(default)s)")
    flag("density", type=float, help="largest share of blocks a row computes, in (0, 1]")
    flag("min_keep", type=float, help="smallest share of blocks a row computes")
    flag("energy", type=float, help="share of the sampled attention that a row's blocks must hold")
    flag("block_size", type=int, metavar="TOKENS", help="tokens of a block")
    flag("sample_tokens", type=int, metavar="N", help="tokens of a block that are looked at")
    flag("global_window", type=int, metavar="TOKENS", help="every so many tokens as one more key")
    flag("sparse_in", choices=SPARSE_IN, help="which of student and fake are sparse (both)")
    flag("lora_rank", type=int, metavar="R", help="0 trains all weights (64)")
    flag("lora_alpha", type=float, help="(64)")
    flag("lora_targets", nargs="+", metavar="LAYER", help="(to_q to_k to_v to_out.0)")


def _add_training(flag: Callable[..., None]) -> None:
    flag("iterations", type=int, metavar="N", help="updates of the student (300)")
    flag("batch", type=int, metavar="N", help="prompts at a time for each process (1)")
    flag("accumulation", type=int, metavar="N", help="batches for one update (1)")
    flag("segments", type=int, metavar="N", help="steps of each roll-out that are trained (1)")
    flag("learning_rate", type=float, help="of the student (1e-4)")
    flag("fake_learning_rate", type=float, help="of the fake score (5e-4)")
    flag("fake_updates", type=int, metavar="N", help="for each update of the student (1)")
    flag("schedule", choices=SCHEDULES, help="of the learning rates (constant_with_warmup)")
    flag("warmup_iterations", type=int, metavar="N", help="(5)")
    flag("clip", type=float, help="largest norm of the gradients (1)")
    flag(
        "average", type=float, help="weight of the past in the averaged weights, 0 for none (0.98)"
    )
    flag("gradient_checkpointing", action="store_true", default=None, help="less memory, more time")
    flag("shard", action="store_true", default=None, help="spread the model over the processes")
    flag("checkpoint_every", type=int, metavar="N", help="iterations; 0 for never (50)")
    flag("keep_checkpoints", type=int, metavar="N", help="the newest so many (2)")
    flag("validate_every", type=int, metavar="N", help="iterations; 0 for never (0)")
    flag("validation_prompts", nargs="+", metavar="TEXT", help="prompt n is run with seed n")
    flag("seed", type=int, help="(0)")


def _add_objective(flag: Callable[..., None]) -> None:
    flag(
        "objective",
        choices=OBJECTIVES,
        help="tdm and imitation need no data; mmd fine-tunes on real images: --data, --features (tdm)",
    )
    flag("data", metavar="DIR", help="real images for mmd")
    flag("features", metavar="MODEL", help="CLIP image encoder for mmd, folder or Hub id")
    flag("churn", type=float, help="share of fresh noise in training steps: 0 TDM, 0.436 BLADE (0)")
    flag(
        "separate",
        action=argparse.BooleanOptionalAction,
        help="compare each step within its own segment",
    )
    flag("huber", type=float, help="constant of the pseudo-Huber distance; 0 for squares (0.001)")
    flag("normalise", action=argparse.BooleanOptionalAction, help="divide by mean |x0 - real|")
    flag("nearness", type=float, help="keeps the fake near the teacher; BLADE's CogVideoX 0.5 (0)")
    flag(
        "teacher_steps",
        type=int,
        metavar="N",
        help="of the imitated teacher for one of the student (1)",
    )


def _add_run(flag: Callable[..., None]) -> None:
    flag("precision", choices=PRECISIONS, help="autocast of training (no)")
    flag("dtype", choices=DTYPE_NAMES, help="dtype of the base's weights")
    flag("device", help="cpu, or what accelerate finds")
    flag("report_to", metavar="TRACKER", help="tensorboard, wandb, ... through accelerate")
    flag("json", action="store_true", help="print one JSON object and nothing else")
    flag("quiet", action="store_true", help="tell no progress")


def settings_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the settings that were given."""
    return {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}


def method_fields(args: argparse.Namespace) -> dict[str, Any] | None:
    """The method's name and the options that were given; None for dense."""
    given = {n: getattr(args, n) for n in METHOD_OPTIONS if getattr(args, n) is not None}
    if args.method == "none":
        if given:
            from sparsediff.kernels.errors import SparseError  # brings in torch, so not for --help

            raise SparseError(
                f"--{min(given).replace('_', '-')} is an option of sparse attention, and --method none "
                f"is dense. Leave one of them out."
            )
        return None
    return {"name": args.method, **given}
