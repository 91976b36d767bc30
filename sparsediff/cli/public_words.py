"""A command line as it can be published: of absolute paths only the last part."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def public_path(path: str) -> str:
    """A path without what it says of the machine."""
    return Path(path).name if Path(path).expanduser().is_absolute() else path


def public_command(words: Sequence[str]) -> str:
    """The arguments of `sparsediff` as one line."""
    return shlex.join(["sparsediff", *map(public_path, words)])
