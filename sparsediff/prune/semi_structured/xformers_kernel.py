"""xformers' 2:4 tensors: for weights that keep two of four along rows and along columns."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediff.prune.semi_structured.candidates import crowded_groups
from sparsediff.prune.semi_structured.sparse_kernel import without_sparse_cores, wrong_multiple

_MULTIPLE = 64
_TOKENS = 8  # cuSPARSELt as xformers calls it needs a multiple of so many tokens


class XformersKernel:
    """xformers.ops.sp24 over cuSPARSELt. Never run on a GPU by this project.

    It sparsifies both ways, for training: in each tile of 4 x 4 at most two values of every row and of
    every column. Masks over inputs alone are not like that, and are refused.
    """

    name = "xformers"

    def unavailable(self, device: torch.device) -> str | None:
        """Needs what torch's kernel needs, and xformers."""
        if why := without_sparse_cores(device):
            return why
        if importlib.util.find_spec("xformers") is None:
            return "xformers is not installed; pip install 'sparsediff[xformers]'"
        if not torch.backends.cusparselt.is_available():
            return "this torch has no cuSPARSELt; install a build of torch for CUDA that has it"
        return None

    def misfit(self, layer: nn.Linear) -> str | None:
        """Sizes, and the columns of every tile."""
        weight = layer.weight.detach()
        if why := wrong_multiple(weight, _MULTIPLE, _MULTIPLE):
            return why
        if crowded := crowded_groups(weight.T):
            return (
                f"{crowded} groups of four outputs have more than two values; xformers' tensors need "
                f"two of four along outputs too. Use the kernel of torch"
            )
        return None

    def converted(self, layer: nn.Linear) -> nn.Module:
        """A layer that flattens its tokens, as xformers' matrix product needs."""
        from xformers.ops import sp24  # type: ignore[import-not-found, unused-ignore]

        sparse: Any = sp24.sparsify24(layer.weight.detach(), backend=sp24.BACKEND_CUSPARSELT)
        return FlatLinear(sparse, layer.bias)


class FlatLinear(nn.Module):
    """A linear layer over tokens ``[..., in]``, given to its weight as ``[n, in]``, 8 dividing n."""

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """``[..., out]``."""
        flat = x.reshape(-1, x.shape[-1])
        padded = F.pad(flat, (0, 0, 0, -len(flat) % _TOKENS))
        return F.linear(padded, self.weight, self.bias)[: len(flat)].view(*x.shape[:-1], -1)
