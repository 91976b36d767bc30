"""A model alone, without its pipeline: loaded from the folder that save_pretrained wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.model_files import read_object
from sparsediff.prune.pruned_folder import MODEL, PIPELINE
from sparsediff.prune.pruned_model import pruned_class
from sparsediff.prune.structures import FAMILIES

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as safetensors names them


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model and no pipeline."""
    return (folder / MODEL).is_file() and not (folder / PIPELINE).exists()


def load_model(folder: Path, *, dtype: str | None, device: str) -> Any:
    """The model in a folder, in the dtype that most of it is kept in where `dtype` is None.

    SparseError when diffusers cannot load it, or it cannot be pruned.
    """
    import diffusers
    import torch

    name = str(read_object(folder / MODEL).get("_class_name"))
    known = {one for family in FAMILIES for one in family.classes}
    found = pruned_class(name) or (getattr(diffusers, name, None) if name in known else None)
    if found is None:
        raise UnsupportedModelError(
            f"{folder} holds a {name}, which cannot be pruned. Supported are "
            f"{', '.join(sorted(known))}."
        )
    try:
        wanted = getattr(torch, dtype or _kept_dtype(folder))
        model = found.from_pretrained(str(folder), torch_dtype=wanted)
    except (OSError, ValueError, RuntimeError) as error:
        raise SparseError(f"{folder} could not be loaded: {str(error).strip()}") from error
    return model.to(device)


def _kept_dtype(folder: Path) -> str:
    """The commonest dtype of the weights' tensors; diffusers would make all of them float32."""
    from safetensors import SafetensorError, safe_open

    found: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found.update(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118
        except (OSError, SafetensorError):  # loading says what is wrong with it
            continue
    return next((_DTYPES[name] for name, _ in found.most_common() if name in _DTYPES), "float32")
