"""Weights that several models have alike, kept once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn


def share_weights(models: Sequence[nn.Module]) -> None:
    """Let parameters of later models be those of earlier ones where they are equal, by any name.

    Within a model every parameter stays its own. Shared ones move, and learn, together.
    """
    known: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for model in models:
        new: list[tuple[Any, nn.Parameter]] = []
        taken: set[int] = set()
        for module, name, parameter in _parameters(model):
            kind = _kind(parameter)
            like = next(
                (p for p in known[kind] if id(p) not in taken and _equal(p, parameter)), None
            )
            if like is None:
                new.append((kind, parameter))
            else:
                taken.add(id(like))
                module._parameters[name] = like
        for kind, parameter in new:
            known[kind].append(parameter)


def byte_count(models: Iterable[nn.Module]) -> int:
    """Bytes of the parameters of models, shared ones once."""
    found = {id(p): p.numel() * p.element_size() for m in models for p in m.parameters()}
    return sum(found.values())


def _parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield module, name, parameter


def _kind(parameter: nn.Parameter) -> tuple[Any, ...]:
    """What equal parameters have alike, quick to compare; the same sum is only a hint."""
    total = float(parameter.detach().double().sum()) if parameter.numel() else 0.0
    return tuple(parameter.shape), parameter.dtype, parameter.device, parameter.requires_grad, total


def _equal(one: nn.Parameter, other: nn.Parameter) -> bool:
    return one is other or torch.equal(one, other)
