"""Listening to diffusers' ``cache_context`` and to its end-of-run signal."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from sparsediff.progress import Context
from sparsediff.session import Session

_NAME = "sparsediff"


def _passive_hook(session: Session) -> Any:
    """A stateful hook that only listens: diffusers finds it in the registry, forward never does."""
    from sparsediff.internals import ModelHook, StateManager

    class ContextListener(StateManager):  # type: ignore[misc]
        def set_context(self, context: Any) -> None:
            """The pipeline says which branch and step the next forward is."""
            super().set_context(context)
            session.progress.context = Context(
                name=getattr(context, "name", context if isinstance(context, str) else None),
                step_index=getattr(context, "step_index", None),
                total=getattr(context, "num_inference_steps", None),
            )

    class PassiveHook(ModelHook):  # type: ignore[misc]
        _is_stateful = True

        def __init__(self) -> None:
            super().__init__()
            self.listener = ContextListener(object)

        def reset_state(self, module: nn.Module) -> nn.Module:
            """The pipeline is done."""
            session.end_run()
            return module

        def __deepcopy__(self, memo: dict[int, Any]) -> ModelHook:
            return ModelHook()

        def __reduce__(self) -> Any:
            return ModelHook, ()

    return PassiveHook()


def add_context_hook(model: nn.Module, session: Session) -> Callable[[], None]:
    """Put a listener into the model's hook registry without rewriting forward; returns the undo.

    The entry goes in front of the registry's own lists, with a placeholder for its forward reference,
    so that hooks added and removed by others chain as before.
    """
    from sparsediff.internals import HookFunctionReference, HookRegistry

    had_registry = "_diffusers_hook" in vars(model)
    registry = HookRegistry.check_if_exists_or_initialize(model)
    _remove_listener(registry)  # a copy of an enabled model brings an inert one along
    registry.hooks[_NAME] = _passive_hook(session)
    registry._hook_order.insert(0, _NAME)
    registry._fn_refs.insert(0, HookFunctionReference())
    home = weakref.ref(model)  # whoever keeps a Session must not keep its model alive

    def undo() -> None:
        owner = home()
        registry = None if owner is None else vars(owner).get("_diffusers_hook")
        if owner is None or registry is None:
            return
        _remove_listener(registry)
        if not had_registry and not registry.hooks:
            vars(owner).pop("_diffusers_hook", None)

    return undo


def _remove_listener(registry: Any) -> None:
    if registry.hooks.pop(_NAME, None) is not None:
        index = registry._hook_order.index(_NAME)
        registry._hook_order.pop(index)
        registry._fn_refs.pop(index)
