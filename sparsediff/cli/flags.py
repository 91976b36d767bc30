"""Flags that are understood with dashes and with underscores, as in diffusers' example scripts."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable
from typing import Any


def flags_of(group: Any) -> Callable[..., None]:
    """A function that adds a flag by its name with underscores to a parser or a group of one."""

    def flag(name: str, **words: Any) -> None:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        group.add_argument(*spellings, dest=name, **words)

    return flag


def folder(text: str) -> str:
    """The type of a flag that names a folder; an unset variable of a shell is not the current one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: needs the name of a folder")
    try:
        os.lstat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is no name of a folder: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise argparse.ArgumentTypeError("is too long for the name of a folder") from None
    return text
