"""What masks give up, counted before anything is cut: units of every kind, and parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import KINDS, Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """``part`` of ``whole``, both counted in ``what``."""

    what: str
    part: int
    whole: int

    @property
    def share(self) -> float:
        """The part as a share of the whole; 0 of nothing."""
        return self.part / self.whole if self.whole else 0.0

    def __str__(self) -> str:
        """Such as ``12 of 72 heads (16.7 %)``."""
        return f"{self.part} of {self.whole} {self.what} ({self.share:.1%})".replace("%)", " %)")


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenUp:
    """``units``: of each kind that was looked at. ``parameters``: of the whole model.

    The two are far apart where much of a model is neither head nor neuron; published shares are often
    only one of them.
    """

    units: tuple[Part, ...]
    parameters: Part

    def __str__(self) -> str:
        """Such as ``12 of 72 heads (16.7 %); 1000 of 20000 parameters (5.0 %)``."""
        return "; ".join(str(part) for part in (*self.units, self.parameters))

    def to_dict(self) -> dict[str, Any]:
        """Counts and shares, for reports and files."""
        named = {part.what: part for part in (*self.units, self.parameters)}
        return {what: {**asdict(part), "share": part.share} for what, part in named.items()}


def given_up(model: nn.Module, structures: Sequence[Structure], masks: Masks) -> GivenUp:
    """What cutting by the masks takes out of a model; parameters are counted as `cut` leaves them.

    Raises SparseError where the masks do not fit the structures.
    """
    masks.check(structures)
    units = []
    for kind in KINDS:
        kept = [
            masks.kept[one.key] for one in structures if one.kind == kind and one.key in masks.kept
        ]
        if kept:
            whole = sum(one.numel() for one in kept)
            stay = sum(int(one.sum()) for one in kept)
            units.append(Part(what=kind, part=whole - stay, whole=whole))
    gone = Part(
        what="parameters", part=_lost(model, structures, masks.kept), whole=_parameters(model)
    )
    return GivenUp(units=tuple(units), parameters=gone)


def _lost(model: nn.Module, structures: Sequence[Structure], kept: Mapping[str, Tensor]) -> int:
    chosen = [(one, kept[one.key]) for one in structures if one.key in kept]
    blocks = {one.path for one, stay in chosen if one.kind == "blocks" and not bool(stay.all())}
    gone = sum(p.numel() for path in blocks for p in model.get_submodule(path).parameters())
    lost: dict[str, dict[str, int]] = defaultdict(lambda: {"out": 0, "in": 0})
    for one, stay in chosen:
        if any(f"{one.path}.".startswith(f"{path}.") for path in blocks):
            continue
        for part in one.cuts:
            lost[part.module][part.side] += int((~stay).sum()) * part.width
        for norm in one.norms:
            layer = model.get_submodule(norm.module)
            gone += int((~stay).sum()) * norm.width * len([*layer.parameters()])
    for path, sides in lost.items():
        linear: Any = model.get_submodule(path)
        rows, columns = linear.weight.shape
        gone += rows * columns - (rows - sides["out"]) * (columns - sides["in"])
        gone += 0 if linear.bias is None else sides["out"]
    return gone


def zeroed_share(model: nn.Module, masks: Mapping[str, Tensor]) -> GivenUp:
    """The same of masks over weights, by layer path: share of the linear weights, and of all.

    Weights that were zero before and are masked count too.
    """
    linear = {
        path: layer.weight.numel()
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    }
    gone = {path: int((~stay).sum()) for path, stay in masks.items()}
    inside = sum(gone.get(path, 0) for path in linear)
    return GivenUp(
        units=(Part(what="linear weights", part=inside, whole=sum(linear.values())),),
        parameters=Part(what="parameters", part=sum(gone.values()), whole=_parameters(model)),
    )


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
