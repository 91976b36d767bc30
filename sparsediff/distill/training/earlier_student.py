"""An earlier student's weights, to go on from: at another size, with other attention."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sparsediff.kernels.errors import SparseError

LORA = "pytorch_lora_weights.safetensors"


def adapter_file(folder: Path) -> Path:
    """The file of a student's adapter. Raises SparseError when there is none."""
    path = folder / LORA
    if not path.is_file():
        raise SparseError(
            f"{folder} holds no {LORA}; needs the folder of a student that was trained with LoRA."
        )
    return path


def read_adapter(folder: Path, component: str) -> dict[str, Tensor]:
    """The weights of a student's folder by the names they have in the model.

    Raises SparseError when there are none.
    """
    path = adapter_file(folder)
    start = f"{component}."
    weights = {n.removeprefix(start): v for n, v in load_file(path).items() if n.startswith(start)}
    if not weights:
        raise SparseError(f"{path} holds nothing for {component}; was it another model's student?")
    return weights
