"""SemiStructuredMasks: which two of every four weights stay, by layer; and putting them to work."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import CANDIDATES, GROUP, kept_of
from sparsediff.prune.semi_structured.layers import check_plain


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SemiStructuredMasks:
    """``choices``: by path of a linear layer, uint8 ``[out, in / 4]`` in 0..5, on the CPU.

    Each is a row of `CANDIDATES`. Raises SparseError for anything else.
    """

    choices: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for path, one in self.choices.items():
            right = isinstance(one, Tensor) and one.dtype == torch.uint8 and one.ndim == 2
            if not right or not one.numel():
                found = f"{one.dtype} {list(one.shape)}" if isinstance(one, Tensor) else one
                raise SparseError(f"choices[{path!r}] is {found}: needs uint8 [out, in / 4].")
            if int(one.max()) >= len(CANDIDATES):
                raise SparseError(f"choices[{path!r}] has {int(one.max())}: needs 0 to 5.")
        object.__setattr__(self, "choices", {path: one.cpu() for path, one in self.choices.items()})

    def kept(self, path: str) -> Tensor:
        """Which weights of a layer stay: bool ``[out, in]``."""
        return kept_of(self.choices[path])

    def check(self, model: nn.Module) -> None:
        """Raises SparseError where these are not masks of the model's linear layers."""
        modules = dict(model.named_modules())
        for path, one in self.choices.items():
            if path not in modules:
                raise SparseError(f"{type(model).__name__} has no layer {path!r}.")
            layer = modules[path]
            check_plain(path, layer)
            shape = [len(one), GROUP * one.shape[1]]
            if shape != list(layer.weight.shape):
                raise SparseError(
                    f"{path} has a weight {list(layer.weight.shape)}, its mask is for {shape}. "
                    f"These are masks of another model."
                )

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the weights that do not stay to zero, in place; SparseError where masks do not fit."""
        self.check(model)
        for path in self.choices:
            weight: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
            weight.masked_fill_(~self.kept(path).to(weight.device), 0)

    def applied(self, model: nn.Module) -> nn.Module:
        """A copy of the model with the masks applied: a normal model of its class, half zeros."""
        self.check(model)
        masked = copy.deepcopy(model)
        self.apply(masked)
        return masked
