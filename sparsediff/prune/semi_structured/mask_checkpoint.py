"""The state of a training of masks as one safetensors file, from which it goes on as if never ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsediff.distill.whole_file import whole_file
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.mask_training import MaskTraining
from sparsediff.prune.tensor_file import TensorFile

SCHEMA = "sparsediff.semi-structured-checkpoint/1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(training: MaskTraining, path: Path) -> None:
    """Write gates, moments and the iteration, whole or not at all: 18 bytes for each masked weight.

    Raises SparseError before the first iteration, and when the file cannot be written.
    """
    from safetensors.torch import save_file

    if not training.iteration:
        raise SparseError("There is nothing to keep before the first iteration.")
    about = {
        "schema": SCHEMA,
        "iteration": str(training.iteration),
        "settings": json.dumps(_lasting(training)),
    }
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in _tensors(training).items()
    }
    with whole_file(path) as beside:
        save_file(tensors, beside, metadata=about)


def load_checkpoint(training: MaskTraining, path: Path) -> None:
    """Put a training that was just made where `save_checkpoint` left another.

    Raises SparseError, with nothing changed, for other settings, other layers and other files.
    """
    file = TensorFile.read(path, schema=SCHEMA, what="a checkpoint of masks")
    found, settings = file.tensors, file.value("settings")
    if settings != _lasting(training):
        raise SparseError(
            f"{path} is of a training with other settings: {settings}. Go on with those, or start anew."
        )
    iteration = _iteration(path, file.about.get("iteration", ""), training.settings.iterations)
    for gates in training.masks.gates.values():
        training.optimizer.state[gates] |= {
            "step": torch.tensor(float(iteration)),
            **{name: torch.zeros_like(gates) for name in _MOMENTS},
        }
    try:
        _copy(path, found, _tensors(training))
    except SparseError:
        training.optimizer.state.clear()
        raise
    training.iteration = iteration


def _copy(path: Path, found: Mapping[str, Tensor], into: dict[str, Tensor]) -> None:
    if set(found) != set(into):
        raise SparseError(
            f"{path} is of a training of other layers. Name those it was started with."
        )
    for name, value in into.items():
        one = found[name]
        if one.shape != value.shape or one.dtype != value.dtype or not bool(one.isfinite().all()):
            raise SparseError(
                f"{path}: {name} is {one.dtype} {list(one.shape)}; needs finite {value.dtype} "
                f"{list(value.shape)}."
            )
    with torch.no_grad():
        for name, value in into.items():
            value.copy_(found[name])


def _tensors(training: MaskTraining) -> dict[str, Tensor]:
    """All that changes, by a name made of its kind and its layer's path."""
    found: dict[str, Tensor] = {}
    for path, gates in training.masks.gates.items():
        found[f"gates/{path}"] = gates
        found |= {f"{name}/{path}": training.optimizer.state[gates][name] for name in _MOMENTS}
    return found


def _lasting(training: MaskTraining) -> dict[str, object]:
    """The settings that make the masks what they are: not the limit of the machine."""
    plain = training.settings.to_dict()
    return {name: value for name, value in plain.items() if name != "memory_gb"}


def _iteration(path: Path, text: str, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= most:
        raise SparseError(f"{path} is said to be of iteration {text!r:.20}; needs 1 to {most}.")
    return number
