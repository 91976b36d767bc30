"""A file written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsediff.kernels.errors import SparseError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path`; what the with-block writes there replaces `path` at its end, at once.

    So a reader or a crash never meets half of it. Raises SparseError when the disk is full or the
    folder cannot be written; the old file stays.
    """
    from safetensors import SafetensorError

    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise SparseError(
            f"{path} could not be written: {error}. Make room, or choose a folder that can be written."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text as `whole_file` does."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
