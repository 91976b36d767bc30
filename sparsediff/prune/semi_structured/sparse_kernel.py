"""SparseKernel: a linear layer that computes with 2:4 weights, on the GPUs that can."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

DTYPES = (torch.float16, torch.bfloat16)
# torch's own limits for cuSPARSELt: both sizes of a weight of 16 bits.
_MULTIPLE = 16
_AMPERE = (8, 0)
_PROBED = 1024  # inputs that are asked for at a time


class SparseKernel(Protocol):
    """``name`` for records."""

    name: str

    def unavailable(self, device: torch.device) -> str | None:
        """Why there is no such kernel on a device; None where there is."""

    def misfit(self, layer: nn.Linear) -> str | None:
        """Why a layer cannot be converted, whatever the device; None where it can."""

    def converted(self, layer: nn.Linear) -> nn.Module:
        """A layer in its place that computes with half of the weights; `layer` stays as it is."""


class TorchKernel:
    """torch.sparse.to_sparse_semi_structured over cuSPARSELt. Never run on a GPU by this project."""

    name = "torch"

    def unavailable(self, device: torch.device) -> str | None:
        """Needs CUDA, sparse tensor cores (compute capability 8.0) and cuSPARSELt."""
        if why := without_sparse_cores(device):
            return why
        if not torch.backends.cusparselt.is_available():
            return "this torch has no cuSPARSELt; install a build of torch for CUDA that has it"
        return None

    def misfit(self, layer: nn.Linear) -> str | None:
        """Both sizes must be multiples of 16."""
        return wrong_multiple(layer.weight, _MULTIPLE, _MULTIPLE)

    def converted(self, layer: nn.Linear) -> nn.Module:
        """A torch.nn.Linear whose weight is a SparseSemiStructuredTensor; for inference."""
        weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
        return linear_over(weight, layer)


def without_sparse_cores(device: torch.device) -> str | None:
    """Why a device cannot compute with 2:4 weights; None where it can."""
    if device.type != "cuda":
        return f"the model is on {device.type}, and 2:4 weights are faster on NVIDIA GPUs only"
    if torch.cuda.get_device_capability(device) < _AMPERE:
        return f"{torch.cuda.get_device_name(device)} has no sparse tensor cores; they came with Ampere"
    return None


def wrong_multiple(weight: Tensor, rows: int, columns: int) -> str | None:
    """Why a weight ``[out, in]`` has no shape for a kernel; None where it has."""
    if weight.shape[0] % rows or weight.shape[1] % columns:
        return f"{list(weight.shape)} is no multiple of [{rows}, {columns}]"
    return None


def linear_over(weight: Tensor, layer: nn.Linear) -> nn.Linear:
    """A linear layer over a converted weight, with the bias of another."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = layer.bias
    return made.train(layer.training)


def made_layer(kernel: SparseKernel, layer: nn.Linear) -> nn.Module | str:
    """The layer in its 2:4 form, asked for each of its weights; or why there is none."""
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
