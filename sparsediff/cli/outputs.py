"""Outputs: where the files of one generation go, checked before the model is loaded."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sparsediff.generation_result import GenerationResult
from sparsediff.kernels.errors import SparseError
from sparsediff.output_folder import require_writable

_FILES = (".mp4", ".gif", ".png")
_ENDING = re.compile(r"\.[a-z0-9]*[a-z][a-z0-9]*")  # of a file; "v0.2" may be a folder


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
        if output.endswith(("/", os.sep)) or path.is_dir() or not _ENDING.fullmatch(suffix):
            return cls(folder=path)
        if suffix not in _FILES:
            raise SparseError(
                f"{path.name} cannot be written; give a file ending in {', '.join(_FILES)}, or a "
                f"folder, with a / at the end if its name has such an ending."
            )
        return cls(folder=path.parent, stem=path.stem, suffix=path.suffix)

    def path(self, kind: str, suffix: str) -> Path:
        """Place of the "sparse", "dense", "report" or "result" file."""
        if not self.stem:
            return self.folder / f"{kind}{suffix}"
        main = kind in ("sparse", "report", "result")
        return self.folder / f"{self.stem}{'' if main else '-' + kind}{suffix}"

    def check(self, *, frames: int) -> None:
        """Raise SparseError when the results could not be written; leaves nothing behind."""
        if self.suffix == ".png" and frames > 1:
            raise SparseError(
                f"{frames} frames do not fit into {self.stem}.png; needs .mp4 or .gif."
            )
        require_writable(self.folder, advice="Choose another with -o.")

    def write(self, result: GenerationResult, *, command: str) -> dict[str, str]:
        """Make the folder, write videos (or images), report and figures; the paths by kind."""
        from sparsediff.html_report import write_report
        from sparsediff.media import write_frames

        natural = ".png" if result.is_image else ".mp4"
        suffix = self.suffix or natural
        if suffix == ".png" and not result.is_image:  # a pipeline without num_frames made a video
            suffix = natural
        self.folder.mkdir(parents=True, exist_ok=True)
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
