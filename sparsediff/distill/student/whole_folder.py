"""Files that belong together, written beside their folder and moved into it when all are there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsediff.kernels.errors import SparseError
from sparsediff.output_folder import require_free, require_writable


@contextmanager
def whole_folder(folder: Path, *, last: str, old: Collection[str]) -> Iterator[Path]:
    """A scratch folder; what the with-block wrote into it is moved into `folder` at its end.

    The file `last` makes the others count: the old one goes before anything is moved, the new one comes
    after everything. Names in `old` that were not written again are removed, other files stay; without
    the file `last` nothing that is there is taken for an old result, and nothing is replaced. When
    anything fails, the disk being full above all, `folder` is as it was. Raises SparseError then.
    """
    from safetensors import SafetensorError

    require_writable(folder, advice="Choose another.")
    scratch = folder.parent / f".{folder.name}-{secrets.token_hex(4)}.tmp"
    try:
        scratch.mkdir(parents=True)
        yield scratch
        require_free(folder, [path.name for path in scratch.iterdir()], mine=last)
        flush(scratch)
        _move(scratch, folder, last=last, old=old)
    except (OSError, SafetensorError) as error:
        raise SparseError(
            f"{folder} could not be saved: {error}. What was there is untouched. Free some space, or "
            f"choose another folder."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush(folder: Path) -> None:
    """Wait until the disk has taken every file: some say that they are full only then."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _move(scratch: Path, folder: Path, *, last: str, old: Collection[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    new = sorted(path.name for path in scratch.iterdir() if path.name != last)
    aside = scratch / ".old"
    aside.mkdir()
    moves = [(folder / name, aside / name) for name in (last, *sorted({*new, *old}))]
    moves += [(scratch / name, folder / name) for name in (*new, last)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            if source.exists():
                source.rename(target)
                done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        raise
