"""What a training was started with, and what of it may differ when it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.tree import leaves
from sparsediff.distill.training.checkpoints import RESUME, find_checkpoint
from sparsediff.distill.whole_file import write_whole
from sparsediff.kernels.errors import SparseError

SETTINGS, PROMPTS = "settings.json", "prompts.json"

# What a training may be resumed with another value of: how fast, how long, in which precision, what it
# leaves behind. All else would make another student, or does not fit the checkpoint.
FREE = (
    *("iterations", "learning_rate", "fake_learning_rate", "schedule", "warmup_iterations", "clip"),
    *("precision", "gradient_checkpointing", "checkpoint_every", "keep_checkpoints"),
    *("validate_every", "validation_prompts"),
)


class Settings(Protocol):
    """Settings of a training, which a file keeps."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> Any:
        """Read what `to_dict` gave."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds them."""


def named(prompts: Sequence[str | Conditions]) -> list[str]:
    """Prompts as they are noted; conditions by a digest of what the model is told."""
    return [prompt if isinstance(prompt, str) else _digest(prompt) for prompt in prompts]


def _digest(conditions: Conditions) -> str:
    found = hashlib.sha256()
    for path, value in sorted(leaves(conditions.positive).items()):
        found.update(path.encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"conditions {found.hexdigest()[:16]}"


def is_started(folder: Path) -> bool:
    """Whether a training was started in this folder."""
    return (folder / SETTINGS).exists()


def write_start(folder: Path, settings: Settings, prompts: Sequence[str]) -> None:
    """Note what a training is started or goes on with. Raises SparseError when it cannot be written."""
    write_whole(folder / PROMPTS, json.dumps(list(prompts), ensure_ascii=False, indent=1) + "\n")
    write_whole(folder / SETTINGS, json.dumps(settings.to_dict(), indent=2) + "\n")


def check_place(  # noqa: PLR0917
    out: Path,
    training: Path,
    checkpoints: Path,
    settings: Settings,
    prompts: Sequence[str],
    resume: str | None,
    *,
    free: Sequence[str] = FREE,
    flag: str = RESUME,
) -> None:
    """Raise SparseError where a training cannot start, or go on, in the folder ``out``.

    Nothing is loaded for it. ``training`` holds settings and prompts, ``free`` are the settings that
    may change. "latest" may be asked for where nothing was started yet.
    """
    if resume not in {None, "latest"}:
        find_checkpoint(checkpoints, str(resume), flag=flag)
    if not is_started(training):
        return
    if resume is None:
        raise SparseError(
            f"{out} holds a training already. Go on with it by {flag}, or choose another folder."
        )
    check_start(training, settings, prompts, free=free)


def check_start(
    folder: Path, settings: Settings, prompts: Sequence[str], *, free: Sequence[str] = FREE
) -> None:
    """Raise SparseError, naming the first difference, where a training cannot go on with these."""
    path = folder / SETTINGS
    before = type(settings).from_dict(_read(path, dict), source=str(path)).to_dict()
    now = json.loads(json.dumps(settings.to_dict()))
    for name, value in now.items():
        if name not in free and value != before[name]:
            raise SparseError(
                f"{name} was {before[name]!r} when the training in {folder} was started and is "
                f"{value!r} now. Resume with what it was started with, or choose another folder; only "
                f"{', '.join(free)} may change."
            )
    known = folder / PROMPTS
    if known.exists() and _read(known, list) != list(prompts):
        raise SparseError(
            f"The prompts are not those of {known}, with which the training was started. Resume with "
            f"the same file and --limit, or choose another folder."
        )


def _read(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SparseError(f"{path} cannot be read: {error}. Start in another folder.") from error
    if not isinstance(found, kind):
        raise SparseError(f"{path} does not hold a JSON {kind.__name__}. Start in another folder.")
    return found
