"""Cutting: units taken out of a model's layers in place, whichever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.prune.no_heads import NoHeads
from sparsediff.prune.own_rotary import keep_rotary
from sparsediff.prune.structures import Cut, SharedNorm, Structure

# Where diffusers notes how the input of a layer is made up, for tensor parallelism.
_PACKED = "_tp_packed_row_blocks"


def cut(
    model: nn.Module,
    structures: Sequence[Structure],
    kept: Mapping[str, Tensor],
    *,
    fold_norms: bool = True,
) -> None:
    """Take out of a model the units that are not kept, bool ``[units]`` by structure key.

    ``fold_norms`` keeps what a norm over all units gives to those that stay: where q and k of the
    others are zero, the mean square over n of m units is n / m of that over all, so its weight takes
    sqrt(m / n) and its eps m / n. False for a model whose weights are loaded afterwards. Blocks
    go last, from the end, so that paths stay true.
    """
    chosen = [(one, kept[one.key]) for one in structures if one.key in kept]
    chosen = [(one, stay) for one, stay in chosen if not bool(stay.all())]
    places: dict[tuple[str, str], Tensor] = {}
    for one, stay in chosen:
        for part in one.cuts:
            _mark(model, part, stay, places)
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for (path, side), stays in places.items():
        layers[path][side] = stays.nonzero().flatten()
    for path, sides in layers.items():
        _cut_linear(model.get_submodule(path), sides.get("out"), sides.get("in"))
    for one, stay in chosen:
        for norm in one.norms:
            _cut_norm(model, norm, stay, fold=fold_norms)
        for count in one.counts:
            owner = model.get_submodule(count.module)
            setattr(owner, count.attribute, int(stay.sum()) * count.per_unit)
        if one.kind == "heads":
            _settle_attention(model.get_submodule(one.attention), one, stay)
    for one, _ in reversed(chosen):
        if one.kind == "blocks":
            _drop_block(model, one.path)


def _mark(model: nn.Module, part: Cut, stay: Tensor, places: dict[tuple[str, str], Tensor]) -> None:
    """Note which places of a layer's side go; several structures may share a layer."""
    weight: Any = model.get_submodule(part.module).weight
    size = weight.shape[0 if part.side == "out" else 1]
    stays = places.setdefault((part.module, part.side), torch.ones(size, dtype=torch.bool))
    end = part.start + len(stay) * part.width
    stays[part.start : end] &= stay.repeat_interleave(part.width)


def _settle_attention(attention: Any, one: Structure, stay: Tensor) -> None:
    """What an attention has besides layers and counts that must fit the heads it has left."""
    for name in ("to_qkv", "to_kv", "to_added_qkv"):  # left over after unfusing, of the old size
        if hasattr(attention, name):
            delattr(attention, name)
            attention.fused_projections = False
    if not bool(stay.any()):
        attention.set_processor(NoHeads(one))
    elif one.rotary:
        width = next(part.width for part in one.cuts)
        keep_rotary(attention, one.rotary, stay.repeat_interleave(width).nonzero().flatten())


def _cut_linear(layer: Any, rows: Tensor | None, columns: Tensor | None) -> None:
    weight = layer.weight.detach()
    if rows is not None:
        weight = weight.index_select(0, rows.to(weight.device))
        layer.out_features = len(rows)
        if layer.bias is not None:
            layer.bias = _parameter(layer.bias, rows)
    if columns is not None:
        weight = weight.index_select(1, columns.to(weight.device))
        layer.in_features = len(columns)
        if hasattr(layer, _PACKED):
            setattr(layer, _PACKED, _left(getattr(layer, _PACKED), columns))
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _left(segments: Sequence[int], columns: Tensor) -> list[int]:
    """How many columns stay of each segment of a layer's input."""
    ends = list(accumulate(segments, initial=0))
    return [int(((columns >= start) & (columns < end)).sum()) for start, end in pairwise(ends)]


def _parameter(parameter: Any, places: Tensor, factor: float = 1.0) -> nn.Parameter:
    part = parameter.detach().index_select(0, places.to(parameter.device)) * factor
    return nn.Parameter(part, requires_grad=parameter.requires_grad)


def _cut_norm(model: nn.Module, norm: SharedNorm, stay: Tensor, *, fold: bool) -> None:
    layer: Any = model.get_submodule(norm.module)
    places = stay.repeat_interleave(norm.width).nonzero().flatten()
    share = float(stay.sum()) / len(stay)
    for name in ("normalized_shape", "dim"):  # torch's and diffusers' RMSNorm
        if hasattr(layer, name):
            setattr(layer, name, (len(places),))
    if share:  # of no heads nothing is normalised
        eps = torch.finfo(layer.weight.dtype).eps if layer.eps is None else layer.eps
        layer.eps = eps / share
    factor = share**-0.5 if fold and share else 1.0
    layer.weight = _parameter(layer.weight, places, factor)
    if getattr(layer, "bias", None) is not None:
        layer.bias = _parameter(layer.bias, places)


def _drop_block(model: nn.Module, path: str) -> None:
    owner, _, name = path.rpartition(".")
    del model.get_submodule(owner)[int(name)]  # type: ignore[operator]
