"""What `sparsediff distill` trains on: prompts or their embeddings, and real images for MMD."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsediff.cli.prompt_file import read_prompts

if TYPE_CHECKING:
    from sparsediff.distill.recording.conditions import Conditions
    from sparsediff.distill.training.objective import Objective
    from sparsediff.distill.training.settings import DistillSettings
    from sparsediff.distill.training.setup import Setup


# What says how teacher, fake and student are compared.
FAKE_ONLY = (
    *("fake_updates", "fake_learning_rate", "churn", "separate", "huber", "normalise", "nearness"),
)
TEACHER_ONLY = ("guidance", "teacher_steps", "segments")


def prompts_of(args: argparse.Namespace) -> list[str | Conditions]:
    """The prompts of --prompts, or the embeddings in it. Raises SparseError when it is neither."""
    from sparsediff.distill.recording.condition_file import load_conditions
    from sparsediff.kernels.errors import SparseError

    if args.limit < 1:
        raise SparseError(f"--limit {args.limit}: needs at least 1.")
    if args.prompts.endswith(".safetensors"):
        return [*load_conditions(args.prompts)[: args.limit]]
    return [*read_prompts(args.prompts, args.limit)]


def encode(
    pipe: Any, prompts: list[str | Conditions], settings: DistillSettings, target: Path
) -> dict[str, Any]:
    """Write what the model is told of the prompts, and train nothing."""
    from sparsediff.distill.recording.condition_file import save_conditions
    from sparsediff.distill.training.setup import Setup

    save_conditions(target, Setup.of(pipe, prompts, settings).conditions)
    return {"out": str(target), "prompts": len(prompts)}


def check_flags(args: argparse.Namespace) -> None:
    """Raise SparseError where a flag would change nothing: none is passed over in silence."""
    from sparsediff.kernels.errors import SparseError

    if args.encode_to is not None and not args.encode_to.endswith(".safetensors"):
        raise SparseError(
            f"--encode-to {args.encode_to}: needs a name that ends in .safetensors, by which --prompts "
            f"knows embeddings from texts."
        )
    if args.sparse_in == "none" and args.method != "none":
        raise SparseError("--sparse-in none is a dense student. Say so by --method none alone.")
    for name, idle, why in _idle(args):
        if idle and getattr(args, name) is not None:
            raise SparseError(f"--{name.replace('_', '-')} changes nothing: {why}.")
    _check_objective(args)


def _idle(args: argparse.Namespace) -> list[tuple[str, bool, str]]:
    """Flags, whether others leave them without effect, and why."""
    whole, never = "--lora-rank 0 trains all weights", "--checkpoint-every 0 writes none"
    return [
        ("sparse_in", args.method == "none", "with --method none nothing is sparse"),
        ("lora_alpha", args.lora_rank == 0, whole),
        ("lora_targets", args.lora_rank == 0, whole),
        ("warmup_iterations", args.schedule == "constant", "--schedule constant has no warm-up"),
        ("keep_checkpoints", args.checkpoint_every == 0, never),
        ("validation_prompts", not args.validate_every, "add --validate-every N"),
    ]


def _check_objective(args: argparse.Namespace) -> None:
    from sparsediff.kernels.errors import SparseError

    given = [f"--{name}" for name in ("data", "features") if getattr(args, name) is not None]
    if args.objective == "mmd" and len(given) < 2:
        raise SparseError(
            "--objective mmd compares with real images; needs --data DIR and --features MODEL."
        )
    if args.objective != "mmd" and given:
        raise SparseError(f"{', '.join(given)}: only --objective mmd looks at images.")
    unused = {"tdm": (), "imitation": FAKE_ONLY, "mmd": (*TEACHER_ONLY, *FAKE_ONLY)}
    objective = args.objective or "tdm"
    idle = [f"--{n.replace('_', '-')}" for n in unused[objective] if getattr(args, n) is not None]
    if idle:
        lacks = "neither a teacher nor a fake score" if objective == "mmd" else "no fake score"
        raise SparseError(
            f"{', '.join(idle)}: --objective {objective} has {lacks}. Leave out what is of tdm."
        )


def objective_of(
    args: argparse.Namespace, settings: DistillSettings, accelerator: Any
) -> Callable[[Setup], Objective] | None:
    """What makes the objective of a setup; None for the usual one."""
    if settings.objective != "mmd":
        return None
    from sparsediff.distill.image_decoder import image_decoder
    from sparsediff.distill.training.clip_features import ClipFeatures
    from sparsediff.distill.training.image_folder import read_images
    from sparsediff.distill.training.mmd_objective import MmdObjective

    def make(setup: Setup) -> Objective:
        decode = image_decoder(setup.pipe)
        setup.pipe.vae.requires_grad_(False)
        height, width = (side * setup.pipe.vae_scale_factor for side in setup.inputs.shape[-2:])
        return MmdObjective(
            setup=setup,
            settings=settings,
            device=accelerator.device,
            real=read_images(Path(args.data), width=width, height=height),
            features=ClipFeatures(args.features, accelerator.device),
            decode=decode,
        )

    return make
