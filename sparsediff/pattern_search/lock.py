"""FolderLock: one search at a time in one folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsediff.kernels.errors import SparseError

FILE = "lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for the length of a with-block; raises SparseError when a living process has it.

    The operating system holds the lock, so that of a process that died is free at once; the file
    only says who has it.
    """
    path = folder / FILE
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody's new file is removed
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise SparseError(
                f"Another search (process {_holder(path)}) is at work in {path.parent}. Wait for it, "
                f"stop it, or choose another folder."
            ) from error
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed the file in between


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
