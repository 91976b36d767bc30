"""Pruning as a whole: score a model's units, choose, cut, and prove that the cut model is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.choice import Scope, choose
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.scores import Scores
from sparsediff.prune.shares import GivenUp, given_up
from sparsediff.prune.structures import KINDS, Kind, Structure
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSettings:
    """What to give up: ``ratio`` of the units of each kind in ``target``, by ``criterion``.

    ``scope`` None is the criterion's own; see `choose` for it, ``heads_multiple_of`` and ``least``.
    Raises SparseError for a value out of range.
    """

    criterion: Criterion
    target: tuple[Kind, ...] = ("heads", "ffn")
    ratio: float = 0.2
    scope: Scope | None = None
    heads_multiple_of: int = 1
    least: int = 1

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.target if kind not in KINDS]
        if unknown or not self.target or len({*self.target}) < len(self.target):
            raise SparseError(
                f"target={','.join(self.target)!r}: needs some of {', '.join(KINDS)}, once each."
            )
        if not 0 < self.ratio < 1:
            raise SparseError(f"ratio={self.ratio!r}: needs the share to give up, between 0 and 1.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pruning:
    """The cut ``model`` and why: ``scores`` of the ``structures``, ``masks``, what was given up."""

    model: nn.Module
    structures: tuple[Structure, ...]
    scores: Scores
    masks: Masks
    given_up: GivenUp

    def layers(self) -> list[dict[str, Any]]:
        """Of every structure, how many units it had and has."""
        return [
            {
                "key": one.key,
                "kind": one.kind,
                "units": one.units,
                "kept": int(self.masks.kept[one.key].sum()),
            }
            for one in self.structures
        ]


def prune(subject: Subject, settings: PruneSettings, batch: Mapping[str, Any] | None) -> Pruning:
    """The subject's model without the units that its criterion can do without; a copy.

    ``batch``: arguments of the model on which the cut model must compute what the masked one does,
    None for no check. Raises SparseError, as `choose` and `remove` do.
    """
    structures = tuple(subject.structures)
    if not structures:
        raise SparseError(
            f"{type(subject.model).__name__} has none of {', '.join(settings.target)} to give up."
        )
    scores = settings.criterion.scores(subject)
    masks = choose(
        scores,
        structures,
        ratio=settings.ratio,
        scope=settings.scope or settings.criterion.scope,
        heads_multiple_of=settings.heads_multiple_of,
        least=settings.least,
    )
    smaller = remove(
        subject.model, masks, batch=batch, heads_multiple_of=settings.heads_multiple_of
    )
    return Pruning(
        model=smaller,
        structures=structures,
        scores=scores,
        masks=masks,
        given_up=given_up(subject.model, structures, masks),
    )
