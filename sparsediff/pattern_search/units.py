"""Units: the finished parts of a search, each a file of tensors that the journal vouches for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.journal import Entry, Journal

Statistics = dict[str, Tensor]


class Units:
    """Statistics by (stage, prompt) in the folder of one search.

    A unit exists when the journal has its entry and its file is the one the entry was written for; a
    unit that a crash left in between, or whose file was damaged, is missing and is computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "units"
        self.journal = Journal(folder / "journal.jsonl")

    def done(self, stage: str) -> list[int]:
        """The prompts whose unit of a stage exists, ascending."""
        entries = self._entries()
        return sorted(p for (s, p), entry in entries.items() if s == stage and self._intact(entry))

    def seconds(self) -> dict[str, list[float]]:
        """How long the units of every stage took, in seconds."""
        found: dict[str, list[float]] = {}
        for entry in self._entries().values():
            found.setdefault(entry.stage, []).append(entry.seconds)
        return found

    def save(
        self, stage: str, prompt: int, statistics: Mapping[str, Tensor], seconds: float
    ) -> None:
        """Write a unit whole or not at all, then enter it in the journal."""
        path = self._path(stage, prompt)
        try:
            self.folder.mkdir(exist_ok=True)
            digest = write_tensors(path, statistics)
            self.journal.append(Entry(stage=stage, prompt=prompt, sha256=digest, seconds=seconds))
        except OSError as error:
            raise SparseError(
                f"{path} could not be written: {error.strerror or error}. Make room, then resume."
            ) from error

    def load(
        self,
        stage: str,
        prompt: int,
        *,
        only: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> Statistics:
        """The tensors of a unit, all or some of them; raises SparseError when there is no such unit."""
        from safetensors import safe_open

        entry = self._entries().get((stage, prompt))
        if entry is None or not self._intact(entry):
            raise SparseError(
                f"{self._path(stage, prompt)} is missing or damaged. Every process needs the same run "
                f"folder; resume the search to compute it again."
            )
        with safe_open(self._path(stage, prompt), framework="pt") as file:
            wanted = [name for name in file.keys() if only is None or name in only]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in wanted if name not in without}

    def _entries(self) -> dict[tuple[str, int], Entry]:
        return {(entry.stage, entry.prompt): entry for entry in self.journal.entries()}

    def _intact(self, entry: Entry) -> bool:
        path = self._path(entry.stage, entry.prompt)
        return path.is_file() and _sha256(path) == entry.sha256

    def _path(self, stage: str, prompt: int) -> Path:
        return self.folder / f"{stage}-{prompt}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Put a file in its place whole or not at all; the hash of its bytes."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        _to_disk(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _to_disk(path.parent)
    return hashlib.sha256(content).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
