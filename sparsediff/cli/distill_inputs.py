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


def prompts_of(args: argparse.Namespace) -> list[str | Conditions]:
    """The prompts of --prompts, or the embeddings in it. Raises SparseError when it is neither."""
    from sparsediff.distill.recording.condition_file import load_conditions

    if args.prompts.endswith(".safetensors"):
        return [*load_conditions(args.prompts)[: args.limit]]
    return [*read_prompts(args.prompts, args.limit)]


def encode(
    pipe: Any, prompts: list[str | Conditions], settings: DistillSettings, target: Path
) -> dict[str, Any]:
    """Write what the model is told of the prompts, and train nothing."""
    from sparsediff.distill.recording.condition_file import save_conditions
    from sparsediff.distill.training.setup import Setup

    target.parent.mkdir(parents=True, exist_ok=True)
    save_conditions(target, Setup.of(pipe, prompts, settings).conditions)
    return {"out": str(target), "prompts": len(prompts)}


def check_objective(args: argparse.Namespace) -> None:
    """Raise SparseError where flags of different objectives are mixed."""
    from sparsediff.kernels.errors import SparseError

    given = [f"--{name}" for name in ("data", "features") if getattr(args, name) is not None]
    if args.objective == "mmd" and len(given) < 2:
        raise SparseError(
            "--objective mmd compares with real images; needs --data DIR and --features MODEL."
        )
    if args.objective != "mmd" and given:
        raise SparseError(f"{', '.join(given)}: only --objective mmd looks at images.")


def objective_of(
    args: argparse.Namespace, settings: DistillSettings, accelerator: Any
) -> Callable[[Setup], Objective] | None:
    """What makes the objective of a setup; None for the usual one."""
    if settings.objective == "tdm":
        return None
    from sparsediff.distill.training.clip_features import ClipFeatures
    from sparsediff.distill.training.image_folder import read_images
    from sparsediff.distill.training.mmd_objective import MmdObjective, image_decoder

    def make(setup: Setup) -> Objective:
        decode = image_decoder(setup.pipe)
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
