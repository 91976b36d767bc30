"""TensorFile: a safetensors file of this project, read once its schema is the right one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorFile:
    """The ``tensors`` of a file by name, and what it says ``about`` them."""

    path: Path
    what: str
    tensors: Mapping[str, Tensor]
    about: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, *, schema: str, what: str) -> TensorFile:
        """Read a file; SparseError, which says `what` it was to be, for any other."""
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise SparseError(f"{path} cannot be read as {what}: {error}.") from error
        if about.get("schema") != schema:
            raise SparseError(f"{path} has the schema {about.get('schema')!r}; needs {schema!r}.")
        return cls(path=path, what=what, tensors=tensors, about=about)

    def value(self, name: str) -> Any:
        """A JSON value of what the file says, None where it says none; SparseError for other text."""
        try:
            return json.loads(self.about.get(name, "null"))
        except (ValueError, RecursionError) as error:
            raise SparseError(f"{self.path} cannot be read as {self.what}: {error}.") from error
