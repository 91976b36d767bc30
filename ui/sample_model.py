"""The small trained model of the repository and the plans made for it: where they are, if here."""

from __future__ import annotations

from pathlib import Path

import sparsediff
from sparsediff.kernels.errors import SparseError

_MODEL = Path("samples") / "models" / "shapes-wan"


def sample_model() -> str:
    """The folder of the sample model, as short as it can be named.

    Raises SparseError outside of a checkout, where there is none.
    """
    if (_MODEL / "model_index.json").is_file():
        return str(_MODEL)
    found = Path(sparsediff.__file__).resolve().parents[1] / _MODEL
    if not (found / "model_index.json").is_file():
        raise SparseError(
            "The sample model is not here, it is part of the repository. Give a model: a diffusers "
            "folder or a Hub id, with --model."
        )
    return str(found)


def sample_plans(model: str) -> list[Path]:
    """The folders of the plans that lie beside a sample model."""
    folder = Path(model).parent.parent / "plans"
    return sorted(found.parent for found in folder.glob(f"{Path(model).name}*/plan.json"))
