"""The file of 2:4 masks: safetensors, three groups a byte, two thirds of a bit for each weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.whole_file import whole_file
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import CANDIDATES, GROUP
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks
from sparsediff.prune.tensor_file import TensorFile

SCHEMA = "sparsediff.semi-structured-masks/1"
# A byte is a + 6 b + 36 c: three choices of six are 216 values.
_BASE, _A_BYTE = len(CANDIDATES), 3


def save_masks(masks: SemiStructuredMasks, path: Path) -> None:
    """Write the file, whole or not at all; SparseError when it cannot be written."""
    from safetensors.torch import save_file

    tensors = {name: _packed(one) for name, one in masks.choices.items()}
    shapes = {name: [len(one), GROUP * one.shape[1]] for name, one in masks.choices.items()}
    with whole_file(path) as beside:
        save_file(tensors, beside, metadata={"schema": SCHEMA, "shapes": json.dumps(shapes)})


def load_masks(path: Path) -> SemiStructuredMasks:
    """Read what `save_masks` wrote; SparseError, naming the file and what is wrong, for all else."""
    file = TensorFile.read(path, schema=SCHEMA, what="2:4 masks")
    shapes, tensors = file.value("shapes"), file.tensors
    if not isinstance(shapes, dict) or set(shapes) != set(tensors):
        raise SparseError(f"{path}: its shapes and its tensors name different layers.")
    try:
        return SemiStructuredMasks(choices=_choices(shapes, tensors))
    except SparseError as error:
        raise SparseError(f"{path}: {error}") from None


def _choices(shapes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, shape in shapes.items():
        whole = isinstance(shape, list) and [type(size) for size in shape] == [int, int]
        if not whole or min(shape) < 1 or shape[1] % GROUP:
            raise SparseError(
                f"{name} is said to be {shape!r:.80}; needs [out, in], 4 dividing in."
            )
        found[name] = _unpacked(name, tensors[name], shape[0], shape[1] // GROUP)
    return found


def _packed(choices: Tensor) -> Tensor:
    flat = choices.flatten()
    filled = torch.cat([flat, flat.new_zeros(-len(flat) % _A_BYTE)]).view(-1, _A_BYTE)
    return filled[:, 0] + _BASE * filled[:, 1] + _BASE**2 * filled[:, 2]


def _unpacked(name: str, packed: Tensor, rows: int, columns: int) -> Tensor:
    length = -(-rows * columns // _A_BYTE)
    if packed.dtype != torch.uint8 or list(packed.shape) != [length]:
        raise SparseError(
            f"{name} is {packed.dtype} {list(packed.shape)}; its shape needs uint8 [{length}]."
        )
    if int(packed.max()) >= _BASE**_A_BYTE:
        raise SparseError(
            f"{name} has a byte of {int(packed.max())}: three groups are at most 215."
        )
    digits = [packed % _BASE, packed // _BASE % _BASE, packed // _BASE**2]
    flat = torch.stack(digits, dim=1).flatten()
    if bool(flat[rows * columns :].any()):
        raise SparseError(f"{name} goes on after its last group.")
    return flat[: rows * columns].view(rows, columns)
