"""Modules of a model by their paths, and by patterns in which ``*`` is one part of a path."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn


def matching(model: nn.Module, pattern: str) -> list[str]:
    """Paths of modules that match a pattern part by part, in the model's order."""
    wanted = pattern.split(".")
    return [
        path
        for path, _ in model.named_modules()
        if len(parts := path.split(".")) == len(wanted)
        and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))
    ]


def join(path: str, name: str) -> str:
    """The path of a module inside another."""
    return f"{path}.{name}" if path and name else path or name


def has(model: nn.Module, path: str) -> bool:
    """Whether a model has a module at a path; one that is set to None it has not."""
    found: Any = model
    for part in path.split("."):
        found = getattr(found, part, None) if not part.isdigit() else _item(found, int(part))
    return isinstance(found, nn.Module)


def _item(found: Any, place: int) -> Any:
    return found[place] if isinstance(found, nn.ModuleList) and place < len(found) else None


def outputs(model: nn.Module, path: str) -> int:
    """How many outputs the linear layer at a path has."""
    return int(model.get_submodule(path).out_features)  # type: ignore[arg-type]
