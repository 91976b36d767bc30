"""A file of a past run: looked at before it is opened, so that nothing else is ever read or served."""

from __future__ import annotations

import stat
from pathlib import Path

from sparsediff.kernels.errors import SparseError

_MOST_BYTES = {".json": 2**20, ".jpg": 2**18, ".png": 2**27, ".mp4": 2**29}
_STARTS = {
    ".json": (0, b"{"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".png": (0, b"\x89PNG\r\n"),
    ".mp4": (4, b"ftyp"),
}


def check_kept_file(path: Path) -> None:
    """Raise SparseError unless this is a regular file, not too large, that begins as its kind does."""
    place, start = _STARTS[path.suffix]
    try:
        found = path.lstat()  # of a link itself, not of what it leads to
        usable = stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES[path.suffix]
        if usable:
            with path.open("rb") as file:
                usable = file.read(16)[place:].startswith(start)
    except OSError:
        usable = False
    if not usable:
        raise SparseError(
            f"{path.parent.name}/{path.name} is missing, too large or no {path.suffix}."
        )
