"""PlanFolder: the files of a plan in a folder, read and written so that nothing else is touched."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsediff.kernels.errors import PlanError
from sparsediff.output_folder import require_writable
from sparsediff.plans.file_limits import PLAN, TABLES, check_size, refuse_pickles


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFolder:
    """A folder that holds, or is to hold, the files of a plan."""

    path: Path

    @property
    def label(self) -> str:
        """What errors call it."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """The content of a file of the plan.

        Raises PlanError when it is missing, lies outside the folder, is no plain file, is larger than
        any plan, or is a pickle.
        """
        path = self.path / name
        try:
            inside = self._inside(path)
        except FileNotFoundError:
            raise PlanError(
                f"{self.path} has no {name}, so it is not a whole plan. Give the folder that "
                f"PatternPlan.save_pretrained wrote."
            ) from None
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise PlanError(f"{path} could not be read: {error}") from None
        if not inside:
            raise PlanError(
                f"{path} is a link to a file outside of the folder; put the file itself there."
            )
        try:
            return read_file(path, name)
        except OSError as error:
            raise PlanError(f"{path} could not be read: {error}") from None

    def _inside(self, path: Path) -> bool:
        home, found = self.path.resolve(strict=True), path.resolve(strict=True)
        if found.parent == home:
            return True
        # The Hub's cache keeps contents apart and links to them from the folder of each revision.
        cache = home.parent.parent if home.parent.name == "snapshots" else None
        return cache is not None and found.parent == cache / "blobs"

    def check_writable(self) -> None:
        """Raise PlanError when a plan could not be saved here; leaves nothing behind."""
        require_writable(self.path, advice="Choose another.", error=PlanError)

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write the files in this order, each whole or not at all; raises PlanError.

        ``plan.json`` belongs last: it makes the others count.
        """
        self.check_writable()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                replace_file(self.path / name, content)
            if TABLES not in contents:
                (self.path / TABLES).unlink(missing_ok=True)
        except OSError as error:
            raise PlanError(f"{PLAN} could not be saved in {self.path}: {error}") from error


def read_file(path: Path, name: str) -> bytes:
    """A plain file's content, its size and its first bytes checked before; `name` is its role."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise PlanError(f"{path} is not a plain file.")
    check_size(name, found.st_size)
    with path.open("rb") as file:
        start = file.read(8)
        refuse_pickles(name, start)
        content = start + file.read(found.st_size)
    check_size(name, len(content))
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Write beside the file, then move over it, so that a crash leaves the old one or the new one."""
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        with scratch.open("xb") as file:  # unlike mkstemp: readable by whom the user's umask lets
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
