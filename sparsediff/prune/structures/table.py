"""The one table of architectures that can be pruned, and the structures of a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.structures.flux import FLUX
from sparsediff.prune.structures.rows import Family
from sparsediff.prune.structures.structure import Kind, Structure
from sparsediff.prune.structures.unet import UNET
from sparsediff.prune.structures.wan import WAN

FAMILIES: tuple[Family, ...] = (WAN, FLUX, UNET)
KINDS: tuple[Kind, ...] = ("heads", "ffn", "blocks")


def family_of(model: nn.Module) -> Family:
    """The rows of a model's architecture; UnsupportedModelError names those that are known."""
    names = {cls.__name__ for cls in type(model).__mro__}
    for family in FAMILIES:
        if names & set(family.classes):
            return family
    known = ", ".join(name for family in FAMILIES for name in family.classes)
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be pruned: nothing is known of its heads and neurons. "
        f"Supported are {known}."
    )


def structures_of(model: nn.Module, kinds: Sequence[Kind] = ("heads", "ffn")) -> list[Structure]:
    """All structures of the kinds in a model, in the model's order.

    Raises SparseError for an unknown kind, UnsupportedModelError for an unknown architecture or a
    model with fused, quantised or LoRA layers, whose rows are not its heads any more.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise SparseError(f"target={kind!r}: needs some of {', '.join(KINDS)}.")
    found = [one for row in family_of(model).rows for one in row.find(model) if one.kind in kinds]
    for cut in (cut for one in found for cut in one.cuts):
        _check_linear(model, cut.module)
    for path in {one.attention for one in found if one.attention}:
        if getattr(model.get_submodule(path), "fused_projections", False):
            raise UnsupportedModelError(
                f"{path} has fused projections. Call model.unfuse_qkv_projections() first."
            )
    order = {path: place for place, (path, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda one: (order[one.path], KINDS.index(one.kind)))


def _check_linear(model: nn.Module, path: str) -> None:
    layer = model.get_submodule(path)
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        raise UnsupportedModelError(
            f"{path} is {type(layer).__name__} over {type(layer.weight).__name__}; only plain "
            f"torch.nn.Linear layers can be cut. Prune before adding LoRA (or fuse it) and before "
            f"quantising."
        )
