"""RootHook: a denoising model tells its session of every forward, its token layout and timestep."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.current import Place
from sparsediff.models import ModelFacts
from sparsediff.processors import is_marked
from sparsediff.session import Session


def timestep_of(inputs: Mapping[str, Any]) -> Tensor | None:
    """The noise level among the named inputs of a denoiser, whatever its class calls it."""
    timestep = inputs.get("timestep", inputs.get("timesteps"))
    return timestep if isinstance(timestep, Tensor) else None


class _Silent:
    """What a copied or unpickled hook becomes: it does nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return None


class RootHook:
    """Forward-pre-hook of one model: notes layout and timestep, tells the session of the forward."""

    def __init__(
        self,
        session: Session,
        facts: ModelFacts,
        place: Place,
        modules: Mapping[int, nn.Module],
    ) -> None:
        self.session = session
        self.facts = facts
        self.place = place
        place.text = facts.text
        self.modules = dict(modules)
        self.names: tuple[str, ...] = ()

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run before the model's forward."""
        inputs = dict(zip(self.names, args, strict=False)) | kwargs
        self.place.layout = self.facts.layout(model, inputs)
        positions = inputs.get(self.facts.positions)
        self.place.positions = positions if isinstance(positions, Tensor) else None
        self.place.timestep = timestep_of(inputs)
        self.place.sizes = None
        if not torch.compiler.is_compiling():
            self.place.sizes = torch.tensor(self.place.layout, device="cpu")
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
    facts: ModelFacts,
    place: Place,
    modules: Mapping[int, nn.Module],
) -> Callable[[], None]:
    """Register the hook as a native one: unlike a rewritten forward, it survives offloading."""
    hook = RootHook(session, facts, place, modules)
    hook.names = tuple(inspect.signature(type(model).forward).parameters)[1:]
    return model.register_forward_pre_hook(hook, with_kwargs=True).remove


def session_on(model: nn.Module) -> Session | None:
    """The session that is enabled on a model."""
    for hook in model._forward_pre_hooks.values():
        if isinstance(hook, RootHook):
            return hook.session
    return None
