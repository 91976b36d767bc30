"""diffusers' registered attention functions, wrapped while any session is enabled.

The registry is private to diffusers; this file alone touches it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsediff.current import CURRENT
from sparsediff.kernels.errors import SparseError
from sparsediff.operator import attend, compiled_attend, dense_functions, session_of


def _registry() -> Any:
    try:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

        registry._backends  # noqa: B018  (the attribute that is needed)
    except (ImportError, AttributeError) as error:
        import diffusers

        raise SparseError(
            f"diffusers {diffusers.__version__} keeps its attention functions elsewhere than "
            f"sparsediff expects ({error}). Install a version that sparsediff supports."
        ) from error
    return registry


def wrap() -> None:
    """Make every registered attention function look for a marked layer first; once."""
    registry = _registry()
    for name, function in list(registry._backends.items()):
        key = str(name.value)
        if key not in dense_functions:
            dense_functions[key] = function
            registry._backends[name] = _sparse_aware(key, function)


def unwrap() -> None:
    """Put the original functions back."""
    registry = _registry()
    for name in list(registry._backends):
        original = dense_functions.pop(str(name.value), None)
        if original is not None:
            registry._backends[name] = original


def _sparse_aware(name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def attention(**arguments: Any) -> Tensor:
        handle = CURRENT.handle
        if handle is None:
            return original(**arguments)
        q, k, v = arguments["query"], arguments["key"], arguments["value"]
        reason = _unfit(q, k, v, arguments)
        if reason:
            if not torch.compiler.is_compiling():
                session_of(handle)[0].fell_back(reason)
            return original(**arguments)
        mask, scale = arguments.get("attn_mask"), arguments.get("scale")
        if torch.compiler.is_compiling():
            out: Tensor = compiled_attend(
                q, k, v, handle, mask, CURRENT.timestep, CURRENT.layout, scale, name
            )
            return out
        return attend(
            q,
            k,
            v,
            handle,
            mask=mask,
            timestep=CURRENT.timestep,
            layout=CURRENT.layout,
            scale=scale,
            backend=name,
        )

    return attention


def _unfit(q: Tensor, k: Tensor, v: Tensor, arguments: dict[str, Any]) -> str:
    """Why a call inside a marked layer is not one that sparse attention computes."""
    if q.shape != k.shape or k.shape != v.shape:
        return "query, key and value differ in shape"
    if arguments.get("is_causal") or arguments.get("dropout_p"):
        return "causal attention or dropout"
    if arguments.get("_parallel_config") is not None:
        return "context parallelism"
    mask = arguments.get("attn_mask")
    if mask is not None and not isinstance(mask, Tensor):
        return f"an attention mask of type {type(mask).__name__}"
    compiling = torch.compiler.is_compiling()
    if compiling and torch.is_grad_enabled() and (q.requires_grad or v.requires_grad):
        return "gradients in a compiled model"
    return ""
