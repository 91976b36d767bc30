"""Gates: a mask at work in a model that is still whole, differentiable, and gone afterwards."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsediff.prune.structures import Structure

# The value of every unit of a structure now: [units], or [b, units] for one mask a sample.
Values = Callable[[str], Tensor]


@contextmanager
def gated(
    model: nn.Module, structures: Sequence[Structure], values: Mapping[str, Tensor] | Values
) -> Iterator[None]:
    """Inside, what every unit passes on is multiplied by its value; gradients flow into values.

    ``values``: by structure key ``[units]``, or ``[b, units]`` for one mask a sample of the batch; or a
    function of the key that is asked in every call, so that a training can draw anew. Keys that a
    mapping does not have stay whole.
    """
    known = values if callable(values) else values.__getitem__
    wanted = [one for one in structures if callable(values) or one.key in values]
    handles: list[RemovableHandle] = []
    try:
        for path, gates in _inputs(wanted).items():
            layer = model.get_submodule(path)
            handles.append(layer.register_forward_pre_hook(_multiplied(gates, known)))
        for one in wanted:
            if one.kind == "blocks":
                block = model.get_submodule(one.path)
                hook = _bypassed(one, block, known)
                handles.append(block.register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _inputs(structures: Sequence[Structure]) -> dict[str, list[tuple[str, int, int, int]]]:
    """By layer, what is multiplied of its input: (structure's key, start, units, width)."""
    found: dict[str, list[tuple[str, int, int, int]]] = defaultdict(list)
    for one in structures:
        for norm in one.norms:
            found[norm.module].append((one.key, 0, one.units, norm.width))
        for cut in one.cuts:
            if cut.side == "in":
                found[cut.module].append((one.key, cut.start, one.units, cut.width))
    return found


def _multiplied(gates: list[tuple[str, int, int, int]], values: Values) -> Any:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = arguments
        factor = None
        for key, start, units, width in gates:
            value = values(key).to(x).repeat_interleave(width, dim=-1)
            if factor is None:
                factor = x.new_ones(*value.shape[:-1], x.shape[-1])
            end = start + units * width
            factor = torch.cat([factor[..., :start], value, factor[..., end:]], dim=-1)
        if factor is None:
            return arguments
        if factor.ndim == 2:  # one mask a sample
            factor = _by_row(factor, x).view(-1, *[1] * (x.ndim - 2), factor.shape[-1])
        return (x * factor, *rest)

    return hook


def _bypassed(one: Structure, block: nn.Module, values: Values) -> Any:
    """The block's outputs, as far as its value says; else its inputs."""
    names = list(inspect.signature(block.forward).parameters)

    def hook(
        module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        several = output if isinstance(output, tuple) else (output,)
        told = dict(zip(names, arguments, strict=False)) | named
        mixed = tuple(
            before if after is None or before is None else _mixed(before, after, values(one.key))
            for after, before in zip(several, (told[name] for name in one.inputs), strict=True)
        )
        return mixed if isinstance(output, tuple) else mixed[0]

    return hook


def _mixed(before: Tensor, after: Tensor, value: Tensor) -> Tensor:
    """Exactly one of the two where the value is 0 or 1."""
    weight = value.to(before)
    if weight.ndim == 2:  # one mask a sample
        weight = _by_row(weight, before).view(-1, *[1] * (before.ndim - 1))
    return torch.lerp(before, after, weight)


def _by_row(values: Tensor, x: Tensor) -> Tensor:
    """Values ``[b, n]`` for the rows of x, of which a sample has several where frames or places
    are folded into the batch, one sample after another."""
    return values.repeat_interleave(len(x) // len(values), dim=0)
