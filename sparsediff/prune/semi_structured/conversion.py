"""Conversion: masked layers that really compute with half of their weights, where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from sparsediff.prune.semi_structured.sparse_kernel import DTYPES, SparseKernel, TorchKernel

_PROBED = 1024  # inputs that are asked for at a time


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
    replaced: dict[str, nn.Module] = {}
    dense: dict[str, str] = {}
    speeds: dict[str, LayerSpeed] = {}
    known: dict[LayerShape, LayerSpeed] = {}
    for path, layer in layers.items():
        made = _made(kernel, layer)
        if isinstance(made, str):
            dense[path] = made
            continue
        shape = LayerShape.of(layer, tokens[path])
        if shape not in known:
            known[shape] = layer_speed(layer, made, shape.tokens, clock=clock)
        speeds[path] = known[shape]
        if speeds[path].pays:
            replaced[path] = made
        else:
            dense[path] = f"the 2:4 layer takes {speeds[path].words()}"
    for path, made in replaced.items():
        model.set_submodule(path, made)
    return ConversionRecord(
        kernel=kernel.name,
        device=device_name(device),
        versions=versions(),
        converted=tuple(replaced),
        dense=dense,
        speeds=speeds,
    )


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


def _made(kernel: SparseKernel, layer: nn.Linear) -> nn.Module | str:
    """The layer in its 2:4 form, or why there is none."""
    if why := kernel.misfit(layer):
        return why
    try:
        made = kernel.converted(layer)
        right = _gives_back(made, layer)
    except (RuntimeError, NotImplementedError) as error:  # a library that knows a limit we do not
        return f"the kernel of {kernel.name} fails: {error}"
    return made if right else f"the kernel of {kernel.name} loses some of its values"


@torch.inference_mode()
def _gives_back(made: Any, layer: nn.Linear) -> bool:
    """Whether each input alone gives its column of the weight: a product with 1 is exact."""
    weight, size = layer.weight, layer.in_features
    bias, made.bias = made.bias, None
    try:
        for first in range(0, size, _PROBED):
            last = min(size, first + _PROBED)
            one = torch.zeros(last - first, size, dtype=weight.dtype, device=weight.device)
            one[:, first:last].fill_diagonal_(1)
            if not torch.equal(made(one), weight[:, first:last].T):
                return False
    finally:
        made.bias = bias
    return True
