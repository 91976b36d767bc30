"""Linear layers whose weights are masked while they run, one mask for all samples or one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsediff.kernels.errors import AlreadyEnabledError, SparseError

# The mask of a layer, by its path, for the input that it has now: [out, in], or [b, out, in].
MaskOf = Callable[[str, Tensor], Tensor]


@contextmanager
def masked_linears(model: nn.Module, paths: Sequence[str], mask_of: MaskOf) -> Iterator[None]:
    """Inside, the layers at `paths` multiply their weights by masks; gradients flow into masks only.

    Hooks on the layers do it, so that class and weights of the model stay as they are, and nothing
    is left afterwards. The layer's own product is computed as well and thrown away: the price of
    standing beside offloading and adapters. Raises AlreadyEnabledError where masks are at work.
    """
    layers = {path: model.get_submodule(path) for path in paths}
    for path, layer in layers.items():
        if any(isinstance(hook, _Masked) for hook in layer._forward_hooks.values()):
            raise AlreadyEnabledError(
                f"The weights of {path} are masked already. Leave the other with-block first."
            )
    handles: list[RemovableHandle] = []
    try:
        for path, layer in layers.items():
            handles.append(layer.register_forward_hook(_Masked(path, mask_of)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Masked:
    """The forward hook of one layer."""

    def __init__(self, path: str, mask_of: MaskOf) -> None:
        self.path, self.mask_of = path, mask_of

    def __call__(self, layer: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        x = arguments[0]
        mask = self.mask_of(self.path, x)
        weight = layer.weight.detach() * mask.to(layer.weight.dtype)
        bias = None if layer.bias is None else layer.bias.detach()
        if weight.ndim == 2:
            masked: Tensor = F.linear(x, weight, bias)
            return masked
        if len(weight) != len(x):
            raise SparseError(
                f"{self.path} is given {len(x)} rows, but the UNet {len(weight)} samples: masks by "
                f"sample need as many of both. Give the text embeddings the batch of the latents."
            )
        rows = torch.matmul(x.flatten(1, -2), weight.mT)
        rows = rows if bias is None else rows + bias.to(rows.dtype)
        found: Tensor = rows.unflatten(1, list(x.shape[1:-1]))
        return found
