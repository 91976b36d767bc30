"""Clips: the dense and the sparse half of a comparison as files that a browser can play."""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sparsediff.generation_result import GenerationResult
from sparsediff.kernels.errors import SparseError
from sparsediff.media import enlarge, write_frames

_KEPT = 3600  # seconds; pages play copies that Gradio makes when a run ends
_LEAST_SIDE = 256  # pixels; smaller videos lose their colours to the coding of a player


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """Paths of the two files, and what a player has to know of them."""

    dense: Path
    sparse: Path
    frames: int
    fps: int
    width: int
    height: int

    @property
    def is_image(self) -> bool:
        """Whether they are pictures."""
        return self.frames == 1

    def copied(self, folder: Path, stem: str) -> Clips:
        """The same in `folder`, under names that begin with `stem`; what is there already stays.

        Raises OSError when they cannot be read or written.
        """
        folder.mkdir(parents=True, exist_ok=True)

        def copy(source: Path) -> Path:
            target = folder / f"{stem}-{source.name}"
            if not target.exists():
                shutil.copyfile(source, target)
            return target

        return replace(self, dense=copy(self.dense), sparse=copy(self.sparse))

    @classmethod
    def write(cls, result: GenerationResult, folder: Path) -> Clips:
        """Write both halves into `folder` under names that nobody can guess.

        Raises SparseError for a result without a dense half, and when the disk is full; no half of
        them is left then.
        """
        if result.dense_frames is None:
            raise SparseError("This result has no dense half to compare with.")
        size, stem = result.size, secrets.token_hex(8)
        suffix = ".png" if result.is_image else ".mp4"
        dense, sparse = (folder / f"{stem}-{kind}{suffix}" for kind in ("dense", "sparse"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, frames in ((dense, result.dense_frames), (sparse, result.sparse_frames)):
                write_frames(enlarge(frames, _LEAST_SIDE), path, fps=result.fps)
        except (OSError, SparseError) as error:
            for path in (dense, sparse):
                path.unlink(missing_ok=True)
            raise SparseError(no_room(error)) from error
        return cls(
            dense=dense,
            sparse=sparse,
            frames=size["frames"],
            fps=result.fps,
            width=size["width"],
            height=size["height"],
        )


def remove_old(folder: Path) -> None:
    """Remove what is older than an hour, so that a server that runs for weeks fills no disk."""
    for path in folder.glob("*.*"):
        with suppress(OSError):  # somebody else removes it too
            if path.is_file() and time.time() - path.stat().st_mtime > _KEPT:
                path.unlink()


def no_room(error: Exception) -> str:
    """What a page says where the results of a run could not be written."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else "it is cut short"
    return (
        f"The run is over, but its result could not be written on the server: {why}. Make room on its "
        f"disk, then press Compare; the dense run is remembered."
    )
