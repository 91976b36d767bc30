"""diffusers' registered attention functions, wrapped while any session is enabled.

The registry is private to diffusers; `internals` says what is used of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from sparsediff.current import CURRENT
from sparsediff.operator import attend, compiled_attend, dense_functions, note_dense, session_of
from sparsediff.parallel.ulysses import joined, refusal

_restore: list[Callable[[], None]] = []


def wrap() -> None:
    """Make every registered attention function look for a marked layer first; once."""
    from sparsediff.internals import AttentionBackendRegistry as registry

    functions: dict[Any, Callable[..., Tensor]] = registry._backends
    for name, function in list(functions.items()):
        key = str(name.value)
        if key not in dense_functions:
            dense_functions[key] = function
            functions[name] = sparse_aware(key, function)
            _restore.append(functools.partial(functions.__setitem__, name, function))
            _restore.append(functools.partial(dense_functions.__delitem__, key))


def unwrap() -> None:
    """Put the original functions back; needs nothing of diffusers, whatever has become of it."""
    while _restore:
        _restore.pop()()


def sparse_aware(name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An attention function ``[b, s, h, d]`` that looks for a marked layer before it runs `original`.

    `name` is its key in `dense_functions`.
    """

    @functools.wraps(original)
    def attention(*args: Any, **arguments: Any) -> Tensor:
        mark = CURRENT.mark
        if mark is None or args:  # diffusers' dispatcher passes keywords only
            return original(*args, **arguments)
        q, k, v = arguments["query"], arguments["key"], arguments["value"]
        if q.shape[1] != k.shape[1]:  # attention to something else inside the layer: image prompts
            mark.foreign = True
            return original(**arguments)
        compiling, part = torch.compiler.is_compiling(), mark.parts
        mark.parts = part + 1
        reason = _unfit(q, k, v, arguments)
        if reason and compiling:
            note = note_dense(q, mark.handle, mark.place.timestep, reason)
            noted: Tensor = original(**arguments) + note
            return noted
        if reason:
            session, layer = session_of(mark.handle)
            session.passed_over(layer, mark.place.timestep, reason)
            return original(**arguments)
        mask, scale = arguments.get("attn_mask"), arguments.get("scale")
        place = mark.place
        parallel = arguments.get("_parallel_config")
        group = "" if parallel is None else joined(parallel, place.text)
        if compiling:
            out: Tensor = compiled_attend(
                q,
                k,
                v,
                mark.handle,
                mask,
                place.timestep,
                place.layout if place.sizes is None else (),
                place.sizes,
                place.positions,
                part,
                scale,
                name,
                group,
            )
            return out
        return attend(
            q,
            k,
            v,
            mark.handle,
            mask=mask,
            timestep=place.timestep,
            layout=place.layout,
            positions=place.positions,
            part=part,
            scale=scale,
            backend=name,
            group=group,
        )

    return attention


def _unfit(q: Tensor, k: Tensor, v: Tensor, arguments: dict[str, Any]) -> str:
    """Why a self-attention call is not one that sparse attention computes; empty when it is."""
    mask, compiling = arguments.get("attn_mask"), torch.compiler.is_compiling()
    parallel = arguments.get("_parallel_config")
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or v.requires_grad)
    reasons = {
        "query, key and value differ in shape": q.shape != k.shape or k.shape != v.shape,
        "causal attention": arguments.get("is_causal"),
        "dropout": arguments.get("dropout_p"),
        "the caller wants the log-sum-exp too": arguments.get("return_lse"),
        "the model has a block mask of its own": not isinstance(mask, Tensor | None),
        "gradients in a compiled model": compiling and needs_grad,
        "torch's attention is exchanged for this call": _exchanged(),
    }
    reason = next((reason for reason, found in reasons.items() if found), "")
    return reason if reason or parallel is None else refusal(parallel, q, mask)


def _exchanged() -> bool:
    """Whether somebody answers torch's functions in its place, as perturbed-attention guidance does.

    The call has to reach torch's own attention then, and nothing of it may be searched.
    """
    modes = _get_current_function_mode_stack()
    return not all(isinstance(mode, DeviceContext) for mode in modes)
