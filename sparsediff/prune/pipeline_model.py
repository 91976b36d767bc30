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
    if len(found) == 1:
        return next(iter(found.items()))
    compiled = [name for name, part in parts.items() if hasattr(part, "_orig_mod")]
    if found:
        advice = f"Prune the folder of each by itself, such as MODEL/{next(iter(found))}."
    elif compiled:
        advice = f"{compiled[0]} is compiled: put the model itself back, and compile what is left."
    else:
        advice = f"Supported are {', '.join(sorted(_KNOWN))}."
    has = ", ".join(f"{name} ({type(part).__name__})" for name, part in found.items()) or "none"
    raise UnsupportedModelError(
        f"{type(pipe).__name__} has {len(found)} models that can be pruned: {has}; needs one. {advice}"
    )
