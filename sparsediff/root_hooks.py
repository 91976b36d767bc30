"""Hooks on a denoising model: its token layout, its timestep, and what its pipeline says."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.current import Place
from sparsediff.models import LayoutRule
from sparsediff.processors import is_marked
from sparsediff.progress import Context
from sparsediff.session import Session

_NAME = "sparsediff"


class _Silent:
    """What a copied or unpickled hook becomes: it does nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return None


class RootHook:
    """Forward-pre-hook of one model: notes layout and timestep, tells the session of the forward."""

    def __init__(
        self,
        session: Session,
        layout: LayoutRule,
        place: Place,
        modules: Mapping[int, nn.Module],
    ) -> None:
        self.session = session
        self.layout = layout
        self.place = place
        self.modules = dict(modules)
        self.names: tuple[str, ...] = ()

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run before the model's forward."""
        inputs = dict(zip(self.names, args, strict=False)) | kwargs
        self.place.layout = self.layout(model, inputs)
        timestep = inputs.get("timestep")
        self.place.timestep = timestep if isinstance(timestep, Tensor) else None
        if not torch.compiler.is_compiling():
            self.session.progress.forward_begins()
            self._count_lost_layers()

    def _count_lost_layers(self) -> None:
        for layer, module in self.modules.items():
            if not is_marked(module.processor):
                self.session.passed_over(
                    layer, self.place.timestep, "the attention processor was replaced"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> _Silent:
        return _Silent()

    def __reduce__(self) -> Any:
        return _Silent, ()


def add_root_hook(
    model: nn.Module,
    session: Session,
    layout: LayoutRule,
    place: Place,
    modules: Mapping[int, nn.Module],
) -> Callable[[], None]:
    """Register the hook as a native one: unlike a rewritten forward, it survives offloading."""
    hook = RootHook(session, layout, place, modules)
    hook.names = tuple(inspect.signature(type(model).forward).parameters)[1:]
    return model.register_forward_pre_hook(hook, with_kwargs=True).remove


def session_on(model: nn.Module) -> Session | None:
    """The session that is enabled on a model."""
    for hook in model._forward_pre_hooks.values():
        if isinstance(hook, RootHook):
            return hook.session
    return None


def add_context_hook(model: nn.Module, session: Session) -> Callable[[], None]:
    """Listen to diffusers' ``cache_context`` and to its end-of-run signal, without rewriting forward.

    The entry goes in front of the registry's own lists, with a placeholder for its forward reference,
    so that hooks added and removed by others chain as before.
    """
    from diffusers.hooks.hooks import HookFunctionReference, HookRegistry, ModelHook, StateManager

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

    had_registry = "_diffusers_hook" in vars(model)
    registry = HookRegistry.check_if_exists_or_initialize(model)
    _remove_listener(registry)  # a copy of an enabled model brings an inert one along
    reference = HookFunctionReference()
    registry.hooks[_NAME] = PassiveHook()
    registry._hook_order.insert(0, _NAME)
    registry._fn_refs.insert(0, reference)

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
