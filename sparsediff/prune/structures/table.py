"""The one table of architectures that can be pruned, and the structures of a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.structures.cogvideox import COGVIDEOX
from sparsediff.prune.structures.flux import CHROMA, FLUX
from sparsediff.prune.structures.hunyuan import HUNYUAN_VIDEO
from sparsediff.prune.structures.layers import check_attention, check_linear, check_norm
from sparsediff.prune.structures.ltx import LTX
from sparsediff.prune.structures.pixart import PIXART
from sparsediff.prune.structures.rows import Family
from sparsediff.prune.structures.sd3 import SD3
from sparsediff.prune.structures.structure import Kind, Structure
from sparsediff.prune.structures.unet import UNET
from sparsediff.prune.structures.wan import WAN, WAN_ANIMATE, WAN_VACE

FAMILIES: tuple[Family, ...] = (
    WAN,
    WAN_VACE,
    WAN_ANIMATE,
    HUNYUAN_VIDEO,
    COGVIDEOX,
    LTX,
    FLUX,
    CHROMA,
    SD3,
    PIXART,
    UNET,
)
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
    model with fused, quantised, LoRA or IP-Adapter layers, whose rows are not its heads any more.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise SparseError(f"target={kind!r}: needs some of {', '.join(KINDS)}.")
    found = [one for row in family_of(model).rows for one in row.find(model) if one.kind in kinds]
    for one in found:
        for cut in one.cuts:
            check_linear(model, cut.module)
        for norm in one.norms:
            check_norm(model, norm.module)
        if one.attention:
            check_attention(model, one.attention)
    order = {path: place for place, (path, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda one: (order[one.path], KINDS.index(one.kind)))
