"""MeasuredFile: what was measured on this machine, one JSON file, read and replaced as a whole.

It may be missing, broken, read-only or written by several processes at once; none of that fails a call.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sparsediff.kernels.cpu.build import cache_folder

logger = logging.getLogger("sparsediff.kernels")

# Beyond it the entries written first, of versions long gone, are dropped.
MAX_ENTRIES = 512

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredFile(Generic[Entry]):
    """Entries by key, in the folder of the compiled CPU kernels.

    ``name`` of the file; ``schema`` that its content must state; ``parse`` makes an entry of plain
    JSON, or raises ValueError or TypeError; ``plain`` is its inverse; ``subject``: what is measured
    again, in words, where the file cannot be used.
    """

    name: str
    schema: str
    parse: Callable[[Any], Entry]
    plain: Callable[[Entry], Any]
    subject: str

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return cache_folder() / self.name

    def load(self) -> dict[str, Entry]:
        """Every entry; none, with one warning, if the file is not as written."""
        try:
            return self._entries(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            warn_once(f"{self.path} is not read ({error}); {self.subject} are measured again")
            return {}

    def save(self, key: str, entry: Entry, *, replace: bool) -> Entry:
        """Add an entry and return it; without `replace` one that is there already is returned instead.

        One warning if the file cannot be written.
        """
        entries = self.load()
        if key in entries and not replace:
            return entries[key]
        entries.pop(key, None)  # the entry written last stands last
        entries[key] = entry
        kept = list(entries.items())[-MAX_ENTRIES:]
        document = {"schema": self.schema, "entries": {k: self.plain(e) for k, e in kept}}
        try:
            _replace(self.path, json.dumps(document, indent=1))
        except OSError as error:
            warn_once(f"{self.path} is not written ({error}); every process measures anew")
        return entry

    def _entries(self, document: Any) -> dict[str, Entry]:
        if not isinstance(document, dict) or document.get("schema") != self.schema:
            raise ValueError(f"it is not {self.schema}")
        entries = document.get("entries")
        if not isinstance(entries, dict):
            raise ValueError("it has no entries")
        found = {}
        for key, entry in entries.items():
            try:
                found[key] = self.parse(entry)
            except (ValueError, TypeError) as error:
                raise ValueError(f"entry {key!r}: {error}") from error
        return found


def _replace(target: Path, text: str) -> None:
    """Write beside the file, then move over it: other processes see the old or the new, whole."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).replace(target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning at its first occurrence."""
    logger.warning(message)
