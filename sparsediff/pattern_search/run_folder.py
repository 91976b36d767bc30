"""RunFolder: where a search keeps what it has done, so that an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import read_object
from sparsediff.output_folder import require_writable
from sparsediff.pattern_search.lock import folder_lock
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.units import Units, write_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """The folder of one search.

    ``settings.json`` what makes the result; ``journal.jsonl`` and ``units/`` the work done; ``lock``
    while a search is at work; at the end the plan's files and ``search.json``.
    """

    path: Path

    @property
    def units(self) -> Units:
        """The work done."""
        return Units(self.path)

    def saved(self) -> tuple[int, int]:
        """How many units are saved, and how many there are to be before any probe of a budget."""
        done = sum(map(len, self.units.seconds().values()))
        count = len(self.read_settings().prompts)
        return done, max(done, 2 * count + 1)

    def check_new(self) -> None:
        """Raise SparseError unless a search can begin here; leaves nothing behind."""
        path = self.path
        if self._settings.exists():
            raise SparseError(
                f"{path} already holds a search. Go on with it by --resume {path}, or choose another "
                f"folder with --out."
            )
        require_writable(path, advice="Choose another with --out.")
        if path.exists() and any(entry.name != "lock" for entry in path.iterdir()):
            raise SparseError(
                f"{path} is not empty. Choose a new folder with --out, so that nothing is "
                f"overwritten."
            )

    def read_settings(self) -> SearchSettings:
        """What the search in this folder was begun with; raises SparseError when there is none."""
        if not self._settings.is_file():
            raise SparseError(
                f"{self.path} holds no search to resume: there is no settings.json. Begin one with "
                f"sparsediff search MODEL --prompts FILE --density 0.3 --out {self.path}."
            )
        return SearchSettings.from_dict(read_object(self._settings), source=str(self._settings))

    def write_settings(self, settings: SearchSettings) -> None:
        """Keep what the search is made of."""
        self.write_json("settings.json", settings.to_dict())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file whole or not at all; raises SparseError when there is no room for it."""
        beside = self.path / f"{name}.tmp"
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        try:
            beside.write_text(text + "\n", encoding="utf-8")
            beside.replace(self.path / name)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise _unwritten(self.path / name, error) from error

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a file of tensors whole or not at all; raises SparseError as `write_json` does."""
        try:
            write_tensors(self.path / name, tensors)
        except OSError as error:
            raise _unwritten(self.path / name, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other searches out, and mend what a crash left; a folder left empty goes again."""
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SparseError(
                f"The folder {self.path} cannot be made: {error.strerror}."
            ) from error
        try:
            with folder_lock(self.path):
                self.units.journal.mend()
                yield
        finally:
            if made:
                with suppress(OSError):  # it holds a search by now
                    self.path.rmdir()

    @property
    def _settings(self) -> Path:
        return self.path / "settings.json"


def _unwritten(path: Path, error: OSError) -> SparseError:
    return SparseError(
        f"{path} could not be written: {error.strerror or error}. Make room, then begin or resume."
    )
