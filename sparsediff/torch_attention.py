"""Processors that call torch's attention instead of diffusers' dispatch (CogVideoX, SD3, UNets)."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sparsediff.dispatch import sparse_aware
from sparsediff.hunyuan15_attention import keys_masked
from sparsediff.operator import dense_functions

_NAME = "torch"  # among diffusers' names in dense_functions; none of them is called so


def _dense(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """What these processors run themselves, on ``[b, s, h, d]``."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


dense_functions[_NAME] = _dense
_sparse_aware = sparse_aware(_NAME, _dense)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, **options: Any
) -> Tensor:
    """torch's function of this name, on ``[b, h, s, d]``; a marked layer's call goes to its session."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return _sparse_aware(query=q, key=k, value=v, **options).transpose(1, 2)


def through_session(base: Any) -> Callable[..., Any]:
    """The ``__call__`` of a processor class, one that reaches its session when it is marked.

    A processor that calls torch's attention gets the same code with another ``F`` around it: a copy of
    diffusers' source would go stale, and exchanging torch's function would reach every model.
    """
    call = keys_masked(base) or base.__call__
    if not isinstance(call, types.FunctionType) or not _calls_torch(call):
        return call
    functional = types.SimpleNamespace(
        **{**vars(F), "scaled_dot_product_attention": scaled_dot_product_attention}
    )
    names = {**call.__globals__, "F": functional}
    # torch.compile guards on the module that a function says it is from, whose F is torch's.
    names.pop("__name__", None)
    return types.FunctionType(
        _copied(call.__code__), names, call.__name__, call.__defaults__, call.__closure__
    )


def _copied(code: types.CodeType) -> types.CodeType:
    """The same code, its inner functions included, as objects of its own.

    torch.compile keeps what it made of a function with the code, though it needs the function's names.
    """
    inner = (_copied(x) if isinstance(x, types.CodeType) else x for x in code.co_consts)
    return code.replace(co_consts=tuple(inner))


def _calls_torch(call: types.FunctionType) -> bool:
    """Whether a processor's code names torch's attention, as a function of the module ``F``."""
    named = scaled_dot_product_attention.__name__ in call.__code__.co_names
    return named and call.__globals__.get("F") is F
