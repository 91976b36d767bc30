"""The folder of a learning: what it was started with, model and all, and may only go on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from sparsediff.distill.training.training_start import check_place
from sparsediff.distill.whole_file import write_whole
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import read_object
from sparsediff.plans.weights_digest import weights_digest
from sparsediff.prune.learning.settings import FREE, LearnSettings

RESUME = "--resume"
MODEL = "model.json"


def checkpoints_of(folder: Path) -> Path:
    """Where its checkpoints are."""
    return folder / "checkpoints"


def check_folder(
    folder: Path, settings: LearnSettings, prompts: Sequence[str], resume: str | None
) -> None:
    """Raise SparseError where a training cannot start, or go on, in a folder; see `check_place`."""
    check_place(
        folder,
        folder,
        checkpoints_of(folder),
        settings,
        prompts,
        resume,
        free=FREE,
        flag=RESUME,
    )


def check_model(folder: Path, model: nn.Module) -> None:
    """Raise SparseError where masks were being learnt in a folder for another model.

    One of the same sizes would go on without a word, from what another's units were worth. Weights of
    which there is no digest (float16, offloaded) are told by their class alone.
    """
    path = folder / MODEL
    if not path.is_file():
        return
    before, now = read_object(path), _told(model)
    weights = before.get("weights"), now["weights"]
    if before.get("class") != now["class"] or (all(weights) and weights[0] != weights[1]):
        raise SparseError(
            f"The masks in {folder} were being learnt for another model than this "
            f"{type(model).__name__}, or other weights of it. Resume with that model, or choose "
            f"another folder."
        )


def write_model(folder: Path, model: nn.Module) -> None:
    """Note which model it is; SparseError when that cannot be written."""
    write_whole(folder / MODEL, json.dumps(_told(model), indent=1) + "\n")


def _told(model: nn.Module) -> dict[str, str | None]:
    return {"class": type(model).__name__, "weights": weights_digest([model])}
