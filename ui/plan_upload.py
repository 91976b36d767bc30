"""A plan that a browser sends: its text, checked by the loader of all plans, and against the model."""

from __future__ import annotations

import base64
import binascii
from pathlib import PureWindowsPath

from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.model_configs import CallDefaults, skeletons
from sparsediff.model_files import ModelFiles
from sparsediff.models import facts_of
from sparsediff.plans import Fingerprint, PatternPlan
from sparsediff.plans.file_limits import MOST_BYTES, PLAN
from sparsediff.token_size import Size, TokenSize
from sparsediff.ui.settings import Settings

_LONGEST_NAME = 60  # characters of a file's name that are shown
_ADVICE = "Download a plan from this tab, or write one with PatternPlan.to_json."


def uploaded(name: object, content: object, size: object = 0) -> tuple[str, PatternPlan]:
    """The plan in `content`, base64 text, and what its file is called, from the file's `name`.

    `name` is only shown, no file is opened; `size` in bytes of a file that was too large to be sent.
    Raises SparseError for what is no plan.
    """
    if not isinstance(name, str) or not isinstance(content, str):
        raise SparseError(f"Nothing was uploaded. {_ADVICE}")
    path = PureWindowsPath(name)  # knows both kinds of slashes
    shown = path.name[-_LONGEST_NAME:]
    if path.suffix.lower() != ".json":
        raise SparseError(f"{shown} is no JSON file, and a plan is one. {_ADVICE}")
    most = MOST_BYTES[PLAN]
    told = size if isinstance(size, int | float) else 0
    if len(content) > (most + 2) // 3 * 4 or told > most:
        raise SparseError(
            f"{shown} is larger than any plan, which has at most {most // 2**20} MiB. {_ADVICE}"
        )
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise SparseError(f"{shown} arrived broken; upload it again.") from None
    return shown[: -len(".json")], PatternPlan.from_json(data, label=shown)


def check_plan(plan: PatternPlan, fingerprint: Fingerprint, model: str, settings: Settings) -> str:
    """A sentence on a plan that fits `model` at the size in `settings`.

    Raises SparseError where it does not, with the size or the model that it is for.
    """
    plan.check(fingerprint)
    _check_grid(plan, model, settings)
    mine, theirs = plan.fingerprint.weights, fingerprint.weights
    if None not in (mine, theirs) and mine != theirs:
        return (
            "It was searched on other weights than this model's: it runs, but its figures are "
            "those of the other weights."
        )
    return "It was searched on this model."


def _check_grid(plan: PatternPlan, model: str, settings: Settings) -> None:
    files = ModelFiles(name=model)
    parts = skeletons(files)
    denoiser = parts.get(next(iter(files.denoisers())))
    facts = None if denoiser is None else facts_of(denoiser)
    if facts is None or facts.unpredicted:
        return  # the run itself refuses another grid before its first step
    token = TokenSize.of(denoiser, parts.get("vae"))
    here, grid = _size(files, settings, facts.frames_in), plan.table.grid
    theirs = (grid.frames, grid.height, grid.width)
    if min(here) < 1 or token.grid(here) == theirs:
        return
    width, height, frames = token.size(theirs)
    raise SparseError(
        f"This plan is for {width} x {height} pixels and {frames} frames; the size chosen here is "
        f"{here[0]} x {here[1]} and {here[2]}. Change width, height and frames, then upload it again, "
        f"or search a plan for this size."
    )


def _size(files: ModelFiles, settings: Settings, frames_in: str) -> Size:
    """What was chosen, else what the pipeline makes; 0 for what nobody knows."""
    usual = CallDefaults.of(files, GenerationRecipe.of(files).with_call(**settings.call))
    return usual.whole("width", 0), usual.whole("height", 0), usual.whole(frames_in, 1)
