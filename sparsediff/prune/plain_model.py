"""A model whose own weights are all that is at work in it: no other can be copied, cut and checked."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsediff.kernels.errors import AlreadyEnabledError, UnsupportedModelError
from sparsediff.root_hooks import session_on


def check_plain(model: nn.Module) -> None:
    """Raise where something besides its weights says what a model computes, or its weights are away.

    AlreadyEnabledError while sparse attention is enabled. UnsupportedModelError with hooks of diffusers
    (a cache answers for blocks that were cut wrong, so that no check could fail; group offloading and
    layerwise casting hold on to the weights as they were), and while accelerate offloads the model.
    """
    name = type(model).__name__
    if session_on(model) is not None:
        raise AlreadyEnabledError(
            f"Sparse attention is enabled on this {name}: it would be checked by what some blocks "
            f"compute. Call disable_sparse_attention() first, and enable it afterwards."
        )
    if hooks := _hooks(model):
        raise UnsupportedModelError(
            f"{name} has hooks of diffusers at work ({', '.join(hooks)}), which would answer for what "
            f"was cut, or put it back. Call disable_cache() where it is a cache; load the model anew, "
            f"without layerwise casting or group offloading, where it is one of these."
        )
    if any(parameter.is_meta for parameter in model.parameters()) or _is_offloaded(model):
        raise UnsupportedModelError(
            f"The weights of {name} are offloaded. Call pipe.remove_all_hooks(), or load it without "
            f"offloading; pruning by magnitude, and cutting, need no GPU."
        )


def _hooks(model: nn.Module) -> list[str]:
    """Names of the hooks that diffusers keeps in a model's modules, each once."""
    found: dict[str, None] = {}
    for module in model.modules():
        registry: Any = vars(module).get("_diffusers_hook")
        found |= dict.fromkeys(getattr(registry, "hooks", {}))
    return sorted(found)


def _is_offloaded(model: nn.Module) -> bool:
    """Whether accelerate moves weights in and out, by module or the whole model."""
    for module in model.modules():
        hook: Any = vars(module).get("_hf_hook")
        for part in (hook, *getattr(hook, "hooks", ())):
            if getattr(part, "offload", False) or type(part).__name__ == "CpuOffload":
                return True
    return False
