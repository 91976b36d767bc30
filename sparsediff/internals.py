"""What sparsediff uses of diffusers that diffusers does not promise to keep, checked at import.

Import it where diffusers is loaded anyway. Raises SparseError that names everything that has moved.
"""

from __future__ import annotations

import importlib
from typing import Any

from sparsediff.kernels.errors import SparseError

_DISPATCH = "diffusers.models.attention_dispatch"
_HOOKS = "diffusers.hooks.hooks"
_REGISTRIES = "diffusers.hooks._helpers"
# Module, name in it, and what of that is used.
_USED = (
    (_DISPATCH, "_AttentionBackendRegistry", ("_backends",)),
    (_HOOKS, "HookRegistry", ("check_if_exists_or_initialize", "register_hook", "remove_hook")),
    (_HOOKS, "HookFunctionReference", ()),
    (_HOOKS, "ModelHook", ("reset_state",)),
    (_HOOKS, "StateManager", ("set_context",)),
    (_REGISTRIES, "AttentionProcessorRegistry", ("get", "register")),
)


def _found() -> dict[str, Any]:
    found, missing = {}, []
    for module, name, parts in _USED:
        try:
            value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            missing.append(f"{module}.{name}")
            continue
        found[name] = value
        missing += [f"{module}.{name}.{part}" for part in parts if not hasattr(value, part)]
    if "HookRegistry" in found:
        lists = vars(found["HookRegistry"](None))
        missing += [
            f"{_HOOKS}.HookRegistry().{part}"
            for part in ("hooks", "_hook_order", "_fn_refs")
            if part not in lists
        ]
    if missing:
        import diffusers

        raise SparseError(
            f"diffusers {diffusers.__version__} has moved what sparse attention attaches to: "
            f"{', '.join(missing)} not found. Nothing was changed. Install a version of diffusers "
            f"that this version of sparsediff supports, or a newer sparsediff."
        )
    return found


_names = _found()
AttentionBackendRegistry: Any = _names["_AttentionBackendRegistry"]
HookRegistry: Any = _names["HookRegistry"]
HookFunctionReference: Any = _names["HookFunctionReference"]
ModelHook: Any = _names["ModelHook"]
StateManager: Any = _names["StateManager"]
AttentionProcessorRegistry: Any = _names["AttentionProcessorRegistry"]
