"""The folder of a pruned model or pipeline: what may be written where, and what is never replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import read_object

MASKS = "pruning_masks.safetensors"
MODEL, PIPELINE = "config.json", "model_index.json"


def check_place(folder: Path, *, alone: bool, source: Path | None = None) -> None:
    """Raise SparseError unless a pruned model (`alone`) or pipeline may be written to a folder.

    One that was pruned before is replaced; any other model stays where it is. ``source``: the folder
    that is pruned, which what is left of it cannot replace.
    """
    if source is not None and source.exists() and source.resolve() == folder.resolve():
        raise SparseError(
            f"{folder} is the model itself: what is pruned would replace the original. Choose another "
            f"folder."
        )
    other, what = (PIPELINE, "pipeline") if alone else (MODEL, "model")
    if (folder / other).exists():
        raise SparseError(f"{folder} holds a {what}. Choose another folder.")
    mine, what = (MODEL, "model") if alone else (PIPELINE, "pipeline")
    if (folder / mine).exists() and not _is_pruned(read_object(folder / mine)):
        raise SparseError(
            f"{folder} holds a {what} that is not a pruned one: it would be lost. Choose another "
            f"folder, or remove it first."
        )


def _is_pruned(description: Mapping[str, Any]) -> bool:
    """Whether a model's config, or a pipeline's list of its parts, names a class of pruned models."""
    parts = [part[-1] for part in description.values() if isinstance(part, list) and part]
    names = [description.get("_class_name"), *parts]
    return any(isinstance(name, str) and name.startswith("Pruned") for name in names)
