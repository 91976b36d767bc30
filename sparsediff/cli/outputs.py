"""Outputs: where the files of one generation go, settled before the model is loaded."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sparsediff.generation_result import GenerationResult
from sparsediff.kernels.errors import SparseError

_FILES = (".mp4", ".gif", ".png")
_OTHER_MEDIA = (".avi", ".jpeg", ".jpg", ".mkv", ".mov", ".webm", ".webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """A folder, with names inside it, or one file that names its neighbours.

    ``suffix`` is the type of video the user asked for, None for the natural one. Raises SparseError
    for a type that cannot be written.
    """

    folder: Path
    stem: str = ""
    suffix: str | None = None

    @classmethod
    def of(cls, output: str | None, *, name: str) -> Outputs:
        """From the -o argument; without one, a folder under runs/ called after `name`."""
        if output is None:
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            return cls(folder=Path("runs") / slug[-60:].strip("-"))
        path = Path(output).expanduser()
        suffix = path.suffix.lower()
        if suffix in _OTHER_MEDIA:
            raise SparseError(
                f"{path.name} cannot be written; give a folder or a file ending in "
                f"{', '.join(_FILES)}."
            )
        if suffix in _FILES:
            return cls(folder=path.parent, stem=path.stem, suffix=path.suffix)
        return cls(folder=path)

    def path(self, kind: str, suffix: str) -> Path:
        """Place of the "sparse", "dense", "report" or "result" file."""
        if not self.stem:
            return self.folder / f"{kind}{suffix}"
        main = kind in ("sparse", "report", "result")
        return self.folder / f"{self.stem}{'' if main else '-' + kind}{suffix}"

    def prepare(self, *, frames: int) -> None:
        """Make the folder; raises SparseError when the results could not be written there."""
        if self.suffix == ".png" and frames > 1:
            raise SparseError(
                f"{frames} frames do not fit into {self.stem}.png; needs .mp4 or .gif."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SparseError(
                f"The folder {self.folder} cannot be made: {error.strerror}."
            ) from error
        if not os.access(self.folder, os.W_OK):
            raise SparseError(f"The folder {self.folder} is not writable; choose another with -o.")

    def write(self, result: GenerationResult, *, command: str) -> dict[str, str]:
        """Write videos (or images), report and figures; returns the paths by kind."""
        from sparsediff.html_report import write_report
        from sparsediff.media import write_frames

        natural = ".png" if result.is_image else ".mp4"
        suffix = self.suffix or natural
        if suffix == ".png" and not result.is_image:  # a pipeline without num_frames made a video
            suffix = natural
        paths = {"sparse": self.path("sparse", suffix)}
        write_frames(result.sparse_frames, paths["sparse"], fps=result.fps)
        if result.dense_frames is not None:
            paths["dense"] = self.path("dense", suffix)
            write_frames(result.dense_frames, paths["dense"], fps=result.fps)
        paths["report"] = self.path("report", ".html")
        paths["result"] = self.path("result", ".json")
        written = {kind: str(path) for kind, path in paths.items()}
        write_report(result, paths["report"], command=command, outputs=written)
        content = json.dumps(result.to_dict(written), indent=1, allow_nan=False)
        paths["result"].write_text(content + "\n", encoding="utf-8")
        return written
