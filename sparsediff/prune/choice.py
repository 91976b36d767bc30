"""Choice: from scores to the masks that give up a share of the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Literal, get_args

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.layer_units import LayerUnits
from sparsediff.prune.masks import Masks
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import KINDS, Kind, Structure

Scope = Literal["kind", "layer"]


def choose(
    scores: Scores,
    structures: Sequence[Structure],
    *,
    ratio: float | Mapping[Kind, float],
    scope: Scope = "kind",
    heads_multiple_of: int = 1,
    least: int = 1,
) -> Masks:
    """Masks of the structures that give up the units of the lowest scores; of equal ones the last.

    ``ratio``: share of the units of each kind that is given up, in [0, 1]; a mapping has one for each
    kind, 0 for those it does not name. The number is exact, but for rounding to whole units and, for
    heads, to multiples. ``scope`` "kind": units of all layers compete; "layer": every layer gives up
    the same share (moved by ``scores.shifts``), to within one unit, so that the total is exact.
    ``heads_multiple_of``: every attention keeps a multiple of so many heads. ``least``: so many units
    every layer keeps at least (of blocks, the model); 0 allows none.

    Raises SparseError for scores that do not fit, for unknown kinds, and where `least` or the multiple
    does not allow the ratio.
    """
    check_choice(scope, heads_multiple_of, least)
    scores.check(structures)
    if scores.shifts and scope != "layer":
        raise SparseError(
            f"scope={scope!r}: these scores give each layer its own share; use 'layer'."
        )
    kept: dict[str, Tensor] = {}
    for kind in KINDS:
        multiple = heads_multiple_of if kind == "heads" else 1
        those = [one for one in structures if one.kind == kind]
        layers = [LayerUnits.of(part, scores, multiple, least) for part in _layers(kind, those)]
        if layers:
            share = _ratio(ratio, kind)
            total = _total(kind, layers, share, least)
            counts = (_by_kind if scope == "kind" else _by_layer)(layers, share, total)
            for layer, count in zip(layers, counts, strict=True):
                kept |= layer.kept(count)
    return Masks(kept=kept)


def _layers(kind: Kind, structures: Sequence[Structure]) -> list[list[Structure]]:
    """What counts as a layer: a block is one unit, so all blocks are one."""
    if kind == "blocks":
        return [list(structures)] if structures else []
    return [[one] for one in structures]


def _total(kind: Kind, layers: Sequence[LayerUnits], ratio: float, least: int) -> int:
    """How many chunks of a kind stay: the nearest to the ratio that is possible."""
    units, multiple = sum(layer.units for layer in layers), layers[0].multiple
    wanted = units - floor(units * ratio + 0.5)
    fewest, most = sum(layer.fewest for layer in layers), sum(layer.most for layer in layers)
    if fewest * multiple - wanted >= multiple:
        raise SparseError(
            f"ratio={ratio:g} of {kind} leaves {wanted} of {units}, but {len(layers)} layers keep at "
            f"least {fewest * multiple} (least={least}, in multiples of {multiple}). Lower the ratio "
            f"or least; least=0 lets whole layers go."
        )
    if wanted - most * multiple >= multiple:
        raise SparseError(
            f"ratio={ratio:g} of {kind} leaves {wanted} of {units}, but in multiples of {multiple} the "
            f"{len(layers)} layers can keep {most * multiple} at most. Raise the ratio to "
            f"{1 - most * multiple / units:.2f}, or take a multiple that divides more layers' {kind}."
        )
    return min(max(floor(wanted / multiple + 0.5), fewest), most)


def _by_kind(layers: Sequence[LayerUnits], ratio: float, total: int) -> list[int]:
    """Chunks that each layer keeps where all compete."""
    counts = [layer.fewest for layer in layers]
    owners = torch.cat(
        [torch.full((layer.most - layer.fewest,), n) for n, layer in enumerate(layers)]
    )
    rest = torch.cat([layer.chunks[layer.fewest :] for layer in layers])
    best = rest.sort(descending=True, stable=True).indices[: total - sum(counts)]
    more = owners[best].bincount(minlength=len(layers)).tolist()
    return [count + extra for count, extra in zip(counts, more, strict=True)]


def _by_layer(layers: Sequence[LayerUnits], ratio: float, total: int) -> list[int]:
    """Chunks that each layer keeps where each keeps its share; what is left goes by largest lack."""
    wanted = [layer.units * (1 - ratio + layer.shift) / layer.multiple for layer in layers]
    counts = [
        min(max(floor(want), layer.fewest), layer.most)
        for want, layer in zip(wanted, layers, strict=True)
    ]

    def lack(n: int, next_: int) -> tuple[float, float, int]:
        return wanted[n] - counts[n], float(layers[n].chunks[next_]), -n

    while sum(counts) < total:
        open_ = [n for n, layer in enumerate(layers) if counts[n] < layer.most]
        counts[max(open_, key=lambda n: lack(n, counts[n]))] += 1
    while sum(counts) > total:
        open_ = [n for n, layer in enumerate(layers) if counts[n] > layer.fewest]
        counts[min(open_, key=lambda n: lack(n, counts[n] - 1))] -= 1
    return counts


def _ratio(ratio: float | Mapping[Kind, float], kind: Kind) -> float:
    if isinstance(ratio, Mapping) and (unknown := sorted({*ratio} - {*KINDS})):
        raise SparseError(f"ratio={ratio!r}: {unknown[0]!r} is none of {', '.join(KINDS)}.")
    value = ratio.get(kind, 0.0) if isinstance(ratio, Mapping) else ratio
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SparseError(f"ratio={value!r} of {kind}: needs the share to give up, in [0, 1].")
    return value


def check_choice(scope: str, multiple: int, least: int) -> None:
    """Raises SparseError for values that `choose` does not take for any scores."""
    if scope not in get_args(Scope):
        raise SparseError(f"scope={scope!r}: needs one of {', '.join(get_args(Scope))}.")
    for name, value, smallest in (("heads_multiple_of", multiple, 1), ("least", least, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise SparseError(f"{name}={value!r}: needs a whole number >= {smallest}.")
