"""Conversion: masked layers that really compute with half of their weights, where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sparsediff.environment import versions
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.ranked_call import device_name
from sparsediff.prune.semi_structured.candidates import crowded_groups
from sparsediff.prune.semi_structured.conversion_record import ConversionRecord
from sparsediff.prune.semi_structured.layer_speed import LayerShape, LayerSpeed, layer_speed
from sparsediff.prune.semi_structured.layers import check_plain
from sparsediff.prune.semi_structured.sparse_kernel import (
    DTYPES,
    SparseKernel,
    TorchKernel,
    made_layer,
)


def convert_where_faster(
    model: nn.Module,
    tokens: Mapping[str, int],
    *,
    kernel: SparseKernel | None = None,
    clock: Callable[[], float] | None = None,
) -> ConversionRecord:
    """Replace linear layers by 2:4 layers, in place, those for which that is measured to be faster.

    ``tokens``: by path of a layer how many tokens its calls have (see `counted_tokens`); its weights
    have masks applied. Layers of one shape are timed once. Every converted layer is asked for each of
    its weights; one that does not give them all back stays dense. For inference: the new layers have
    no gradients, and cannot be saved; save the masked model instead. Until the end there is room needed
    for both forms: half of the layers' weights on top.

    Raises SparseError, with nothing changed, where this device has no such kernel, and for layers
    that are not 2:4 or not in half precision. Never run on a GPU by this project.
    """
    kernel = kernel or TorchKernel()
    modules = dict(model.named_modules())
    layers = {path: _checked(modules, path, count) for path, count in tokens.items()}
    if not layers:
        raise SparseError("tokens is empty: it names the layers to convert, with their tokens.")
    device = _only_device(layers)
    if why := kernel.unavailable(device):
        raise SparseError(
            f"2:4 layers (kernel of {kernel.name}) cannot be made here: {why}. The masked model runs "
            f"everywhere as it is, at the speed of a dense one."
        )
    for path, layer in layers.items():
        _check_values(path, layer)
    trial = _Trial(kernel=kernel, clock=clock)
    for path, layer in layers.items():
        trial.decide(path, layer, tokens[path])
    for path, made in trial.replaced.items():
        model.set_submodule(path, made)
    return ConversionRecord(
        kernel=kernel.name,
        device=device_name(device),
        versions=versions(),
        converted=tuple(trial.replaced),
        dense=trial.dense,
        speeds=trial.speeds,
    )


@dataclass(kw_only=True, slots=True)
class _Trial:
    """Layer by layer, the 2:4 layer that replaces it, or why it stays dense."""

    kernel: SparseKernel
    clock: Callable[[], float] | None
    replaced: dict[str, nn.Module] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)
    speeds: dict[str, LayerSpeed] = field(default_factory=dict)
    known: dict[LayerShape, LayerSpeed] = field(default_factory=dict)

    def decide(self, path: str, layer: nn.Linear, tokens: int) -> None:
        made = made_layer(self.kernel, layer)
        if isinstance(made, str):
            self.dense[path] = made
            return
        shape = LayerShape.of(layer, tokens)
        if shape not in self.known:
            self.known[shape] = layer_speed(layer, made, tokens, clock=self.clock)
        speed = self.speeds[path] = self.known[shape]
        if speed.pays:
            self.replaced[path] = made
        else:
            self.dense[path] = f"the 2:4 layer takes {speed.words()}"


def _checked(modules: Mapping[str, Any], path: str, tokens: int) -> nn.Linear:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise SparseError(f"tokens[{path!r}]={tokens!r}: needs a whole number >= 1.")
    if path not in modules:
        raise SparseError(f"{type(modules['']).__name__} has no layer {path!r}.")
    check_plain(path, modules[path])
    layer: nn.Linear = modules[path]
    return layer


def _only_device(layers: Mapping[str, nn.Linear]) -> torch.device:
    devices = {layer.weight.device for layer in layers.values()}
    if len(devices) > 1:
        raise SparseError(
            f"The layers are on {', '.join(sorted(map(str, devices)))}; put the model on one device."
        )
    return devices.pop()


def _check_values(path: str, layer: nn.Linear) -> None:
    if layer.weight.dtype not in DTYPES:
        raise SparseError(
            f"{path} is in {layer.weight.dtype}; 2:4 layers compute in float16 or bfloat16. Convert "
            f"the model first, such as model.to(torch.bfloat16)."
        )
    if crowded := crowded_groups(layer.weight.detach()):
        raise SparseError(
            f"{path} has {crowded} groups of four inputs with more than two values that are not zero. "
            f"Apply 2:4 masks first: masks.apply(model)."
        )
