"""Videos that a report of a plan can show: dense beside the plan's, or dense alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.media import read_frames
from sparsediff.pattern_search.probes import planned_frames
from sparsediff.pattern_search.profiles import STAGE, dense_frames
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.search import PatternTable

SUFFIXES = (".mp4", ".png")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlanVideos:
    """Videos of one prompt from the same noise: float ``[f, h, w, 3]`` in [0, 1].

    ``planned`` is None where no run with the plan is at hand; ``source`` says where they are from.
    """

    dense: Tensor
    planned: Tensor | None
    source: str

    @classmethod
    def beside(cls, folder: Path) -> PlanVideos | None:
        """The videos that `sparsediff generate --compare` wrote into a folder, if both are there."""
        found = [_file(folder, name) for name in ("dense", "sparse")]
        if found[0] is None or found[1] is None:
            return None
        dense, planned = (read_frames(path) for path in found if path is not None)
        if dense.shape != planned.shape:
            raise SparseError(
                f"{found[0]} and {found[1]} are no pair: {tuple(dense.shape)} and "
                f"{tuple(planned.shape)} frames, height, width and colours. Generate them again with "
                f"--compare."
            )
        source = f"{found[0].name} and {found[1].name}, as sparsediff generate --compare wrote them"
        return cls(dense=dense, planned=planned, source=source)

    @classmethod
    def of_search(
        cls, folder: RunFolder, prompts: tuple[str, ...], table: PatternTable
    ) -> PlanVideos | None:
        """The first dense video that a search has kept, and the one of its plan, if it ran."""
        for prompt in folder.units.done(STAGE):
            try:
                frames = dense_frames(folder.units, prompt)
            except KeyError:  # kept for the first few prompts only
                continue
            words = f"prompt {prompt + 1} of the calibration"
            if prompt < len(prompts):
                words += f": {prompts[prompt]}"
            try:
                planned = planned_frames(folder.units, table, prompt)
            except KeyError:
                planned = None
            return cls(dense=frames, planned=planned, source=words)
        return None


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
