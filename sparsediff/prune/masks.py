"""Masks: which units of a model stay, by structure, and the file that keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sparsediff.distill.whole_file import whole_file
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.structures import Structure
from sparsediff.prune.tensor_file import TensorFile

SCHEMA = "sparsediff.pruning-masks/1"
# Keys come from files, too: paths of modules and nothing else, places short enough to be numbers.
_NAME, _PLACE = r"[A-Za-z_][A-Za-z0-9_]{0,99}", r"[0-9]{1,6}"
_PATH = rf"{_NAME}(\.({_NAME}|{_PLACE})){{0,19}}"
_KEY = re.compile(rf"(heads|ffn)/{_PATH}|blocks/{_PATH}\.{_PLACE}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Masks:
    """``kept``: for each structure's key, bool ``[units]``, True for units that stay; on the CPU.

    Structures that are not named stay whole. Raises SparseError for anything but 1-D bool tensors, and
    for keys that could be no structure's.
    """

    kept: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not isinstance(self.kept, Mapping):
            raise SparseError(f"kept={self.kept!r:.80}: needs a mapping of keys to bool tensors.")
        for key, kept in self.kept.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise SparseError(
                    f"masks[{key!r:.80}] names no structure: needs heads/, ffn/ or blocks/ and a "
                    f"module's path, of blocks one that ends in its place, such as blocks/blocks.3."
                )
            if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.ndim != 1:
                found = f"{kept.dtype} {list(kept.shape)}" if isinstance(kept, Tensor) else kept
                raise SparseError(f"masks[{key!r}] is {found}: needs a bool tensor [units].")
        object.__setattr__(self, "kept", {key: kept.cpu() for key, kept in self.kept.items()})

    @property
    def density(self) -> float:
        """Share of the named units that stay; 1 where none is named."""
        units = sum(kept.numel() for kept in self.kept.values())
        return sum(int(kept.sum()) for kept in self.kept.values()) / units if units else 1.0

    def check(self, structures: Sequence[Structure]) -> None:
        """Raises SparseError where these are not masks of the structures."""
        known = {one.key: one.units for one in structures}
        for key, kept in self.kept.items():
            if key not in known:
                raise SparseError(f"The model has no structure {key!r}; it has {_some(known)}.")
            if kept.numel() != known[key]:
                raise SparseError(f"masks[{key!r}] has {kept.numel()} units, not {known[key]}.")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all; SparseError when it cannot be written."""
        tensors = {key: kept.to(torch.uint8).contiguous() for key, kept in self.kept.items()}
        with whole_file(Path(path)) as beside:
            save_file(tensors, beside, metadata={"schema": SCHEMA})

    @classmethod
    def load(cls, path: str | Path) -> Masks:
        """Read what `save` wrote; SparseError for anything else."""
        values = TensorFile.read(Path(path), schema=SCHEMA, what="masks").tensors
        if any(value.dtype != torch.uint8 or (value > 1).any() for value in values.values()):
            raise SparseError(f"{path} holds values other than 0 and 1.")
        return cls(kept={key: value.bool() for key, value in values.items()})


def _some(known: Mapping[str, int]) -> str:
    names = list(known)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
