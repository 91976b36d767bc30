"""Whether a folder can be written, asked before any work is done."""

from __future__ import annotations

import os
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
