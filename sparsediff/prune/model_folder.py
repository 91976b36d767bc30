"""A model alone, without its pipeline: loaded from the folder that save_pretrained wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.model_files import read_object
from sparsediff.prune.pruned_model import pruned_class
from sparsediff.prune.structures import FAMILIES

CONFIG = "config.json"


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model and no pipeline."""
    return (folder / CONFIG).is_file() and not (folder / "model_index.json").exists()


def load_model(folder: Path, *, dtype: str, device: str) -> Any:
    """The model in a folder; SparseError when diffusers cannot load it, or it cannot be pruned."""
    import diffusers
    import torch

    name = str(read_object(folder / CONFIG).get("_class_name"))
    known = {one for family in FAMILIES for one in family.classes}
    found = pruned_class(name) or (getattr(diffusers, name, None) if name in known else None)
    if found is None:
        raise UnsupportedModelError(
            f"{folder} holds a {name}, which cannot be pruned. Supported are "
            f"{', '.join(sorted(known))}."
        )
    try:
        model = found.from_pretrained(str(folder), torch_dtype=getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError) as error:
        raise SparseError(f"{folder} could not be loaded: {str(error).strip()}") from error
    return model.to(device)
