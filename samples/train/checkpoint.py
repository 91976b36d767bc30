"""Checkpoints: one folder per save, complete or absent, safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

STATE, INFO = "state.safetensors", "state.json"
SCHEMA = "shapes-training/1"


def newest(folder: Path) -> Path:
    """The newest checkpoint below `folder`; exits with an explanation when there is none."""
    steps = sorted(folder.glob("step-*[0-9]"))
    if not steps:
        raise SystemExit(
            f"Found no checkpoint (step-*) in {folder}; needed a folder that a training run wrote. "
            f"Start one with --output {folder}."
        )
    return steps[-1]


def save(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    info: dict[str, Any],
    export: Callable[[Path], None],
) -> Path:
    """Write `folder`/step-N and drop the older ones; `export` adds the model as diffusers reads it.

    The folder gets its name only when it is complete, so an interruption costs nothing.
    """
    final = folder / f"step-{step:08d}"
    draft = folder / f"{final.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    export(draft)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, draft / STATE)
    text = json.dumps({"schema": SCHEMA, "step": step, **info}, indent=1)
    (draft / INFO).write_text(text + "\n")
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    for older in folder.glob("step-*[0-9]"):
        if older != final:
            shutil.rmtree(older)
    return final


def info_of(folder: Path) -> dict[str, Any]:
    """The JSON part of the newest checkpoint in `folder`."""
    path = newest(folder) / INFO
    info: dict[str, Any] = json.loads(path.read_text())
    if info.get("schema") != SCHEMA:
        found = info.get("schema")
        raise SystemExit(f"Found schema {found!r} in {path}; needed {SCHEMA!r}. Start a new run.")
    return info


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of the newest checkpoint in `folder`, on the CPU."""
    return load_file(newest(folder) / STATE)
