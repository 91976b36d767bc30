"""Cutting: units taken out of a model's layers in place, whichever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.prune.no_heads import NoHeads
from sparsediff.prune.structures import Cut, SharedNorm, Structure


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
        if one.kind == "heads" and not bool(stay.any()):
            model.get_submodule(one.attention).set_processor(NoHeads(one))  # type: ignore[operator]
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


def _cut_linear(layer: Any, rows: Tensor | None, columns: Tensor | None) -> None:
    weight = layer.weight.detach()
    if rows is not None:
        weight = weight[rows.to(weight.device)]
        layer.out_features = len(rows)
        if layer.bias is not None:
            bias = layer.bias.detach()[rows.to(layer.bias.device)]
            layer.bias = nn.Parameter(bias.clone(), requires_grad=layer.bias.requires_grad)
    if columns is not None:
        weight = weight[:, columns.to(weight.device)]
        layer.in_features = len(columns)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=layer.weight.requires_grad)


def _cut_norm(model: nn.Module, norm: SharedNorm, stay: Tensor, *, fold: bool) -> None:
    layer: Any = model.get_submodule(norm.module)
    places = stay.repeat_interleave(norm.width).nonzero().flatten()
    share = float(stay.sum()) / len(stay)
    layer.normalized_shape = (len(places),)
    if share and layer.eps is not None:  # of no heads nothing is normalised
        layer.eps = layer.eps / share
    if layer.weight is not None:
        weight = layer.weight.detach()[places.to(layer.weight.device)].clone()
        if fold and share:
            weight *= share**-0.5
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _drop_block(model: nn.Module, path: str) -> None:
    owner, _, name = path.rpartition(".")
    del model.get_submodule(owner)[int(name)]  # type: ignore[operator]
