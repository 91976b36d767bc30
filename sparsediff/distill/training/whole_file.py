"""A small file written whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sparsediff.kernels.errors import SparseError


def write_whole(path: Path, text: str) -> None:
    """Replace what `path` says at once, so that a reader or a crash never meets half of it.

    Raises SparseError when the disk is full or the folder cannot be written; the old file stays.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise SparseError(
            f"{path} could not be written: {error}. Make room, or choose a folder that can be written."
        ) from error
