"""Whether a folder can be written, and what it would cost, asked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sparsediff.kernels.errors import SparseError


def require_writable(folder: Path, *, advice: str, error: type[SparseError] = SparseError) -> None:
    """Raise `error` when `folder` could not be made or written; `advice` says what to do instead.

    Leaves nothing behind.
    """
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise error(f"The folder {folder} cannot be made: {there} is a file. {advice}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise error(f"The folder {there} is not writable. {advice}")


def require_free(folder: Path, names: Iterable[str], *, mine: str) -> None:
    """Raise SparseError when files in `folder` that are not ours would be replaced.

    ``names``: what will be written; ``mine``: the file that tells of an earlier result of ours, which
    may be replaced.
    """
    found = sorted(name for name in {mine, *names} if (folder / name).exists())
    if found and mine not in found:
        there = folder if str(folder) != "." else "The current folder"
        raise SparseError(
            f"{there} holds {', '.join(found)}, which would be replaced, and nothing (no {mine}) says "
            f"that they are of an earlier result. Choose a new or an empty folder."
        )
