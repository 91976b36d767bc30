"""The model of a pipeline that can be pruned."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.prune.structures import FAMILIES

_KNOWN = {name for family in FAMILIES for name in family.classes}


def prunable_model(pipe: Any) -> tuple[str, nn.Module]:
    """Its component's name and the model; UnsupportedModelError unless there is exactly one."""
    parts = getattr(pipe, "components", {})
    found = {
        name: part
        for name, part in parts.items()
        if isinstance(part, nn.Module) and {cls.__name__ for cls in type(part).__mro__} & _KNOWN
    }
    if len(found) != 1:
        has = ", ".join(f"{name} ({type(part).__name__})" for name, part in found.items()) or "none"
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has {len(found)} models that can be pruned: {has}; needs one. "
            f"Supported are {', '.join(sorted(_KNOWN))}."
        )
    return next(iter(found.items()))
