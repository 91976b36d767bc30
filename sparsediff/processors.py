"""Marked attention processors: the user's own ones, by a subclass that says which layer runs."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from sparsediff.current import CURRENT, Mark
from sparsediff.operator import session_of
from sparsediff.torch_attention import through_session

_MARK = "_sparsediff_mark"


def _new(base: Any) -> Any:
    return base.__new__(base)


@cache
def _marked_class(base: Any) -> type:
    """A subclass of a processor class that names its layer in `CURRENT` around each call.

    Copies and pickles of a marked processor are plain ones: two models must not share a session.
    """
    base_call: Callable[..., Any] = through_session(base)
    # One that could have come to the session and did not computed no attention: LTX-2's perturbed
    # guidance takes the values instead.
    chooses = base_call is not base.__call__ or "dispatch_attention_fn" in _names(base.__call__)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        previous, mark = CURRENT.mark, self._sparsediff_mark
        if mark is None:  # somebody made another one of its class: loading an IP adapter does
            return base_call(self, *args, **kwargs)
        CURRENT.mark = mark
        mark.parts, mark.foreign = 0, False
        try:
            if torch.compiler.is_compiling():
                return base_call(self, *args, **kwargs)
            out = base_call(self, *args, **kwargs)
            if not mark.parts and (mark.foreign or not chooses):
                _missed(mark, base)
            return out
        finally:
            CURRENT.mark = previous

    def state(self: Any) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _MARK}

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        plain = memo[id(self)] = _new(base)
        vars(plain).update(copy.deepcopy(state(self), memo))
        return plain

    def reduce(self: Any, protocol: Any) -> Any:
        return _new, (base,), state(self)

    # Legacy attention modules drop keyword arguments that the signature does not name.
    call.__wrapped__ = base_call  # type: ignore[attr-defined]
    members = {
        "__call__": call,
        _MARK: None,
        "__deepcopy__": deepcopy,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
    }
    marked = type(base.__name__, (base,), members)
    _tell_layer_skipping(base, marked)
    return marked


def _tell_layer_skipping(base: type, marked: type) -> None:
    """Guidance that skips attention looks up what a processor returns by its exact class."""
    from sparsediff.internals import AttentionProcessorRegistry

    try:
        known = AttentionProcessorRegistry.get(base)
    except ValueError:  # diffusers cannot skip this one, marked or not
        return
    AttentionProcessorRegistry.register(marked, known)


def is_marked(processor: object) -> bool:
    """Whether a processor names its layer when it runs."""
    return _MARK in getattr(processor, "__dict__", {})


def _names(function: Any) -> tuple[str, ...]:
    """What the code of a function calls by name."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_names)


def _missed(mark: Mark, base: type) -> None:
    session, layer = session_of(mark.handle)
    reason = f"{base.__name__} computes attention without diffusers' attention dispatch"
    if mark.foreign:  # Flux.2 Klein keeps the keys of reference images
        reason = f"{base.__name__} takes keys that are not of its own tokens alone"
    session.passed_over(layer, mark.place.timestep, reason)


def shared_processors(model: nn.Module) -> set[int]:
    """Ids of the processors that several modules use: all of them, after fusing projections.

    Some of those modules may be cross-attention, which must not get a mark.
    """
    held = [id(getattr(module, "processor", None)) for module in model.modules()]
    return {number for number, times in Counter(held).items() if times > 1}


def mark(module: nn.Module, label: Mark, taken: set[int]) -> Callable[[], None]:
    """Mark the processor of an attention module; returns what undoes it.

    A processor that another module uses as well (its id is in `taken`) is replaced by a shallow copy,
    because a mark names one layer.
    """
    original: Any = module.processor
    processor = copy.copy(original) if id(original) in taken else original
    taken.add(id(processor))
    base: Any = type(processor)
    processor.__class__ = _marked_class(base)
    setattr(processor, _MARK, label)
    if processor is not original:
        module.processor = processor
    home = weakref.ref(module)  # whoever keeps a Session must not keep its model alive

    def undo() -> None:
        processor.__class__ = base
        vars(processor).pop(_MARK, None)
        owner: Any = home()
        if owner is not None and processor is not original and owner.processor is processor:
            owner.processor = original

    return undo
