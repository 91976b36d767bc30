"""Pruning as a whole: score a model's units, choose, cut, and prove that the cut model is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.models import unwrapped
from sparsediff.prune.choice import Scope, check_choice, choose
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.masks import Masks
from sparsediff.prune.plain_model import check_plain
from sparsediff.prune.pruned_model import check_class
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
        number = isinstance(self.ratio, int | float)
        if not number or not 0 < self.ratio < 1:
            raise SparseError(f"ratio={self.ratio!r}: needs the share to give up, between 0 and 1.")
        check_choice(self.chosen_scope, self.heads_multiple_of, self.least)
        if self.criterion.moves_shares and self.chosen_scope != self.criterion.scope:
            raise SparseError(
                f"scope={self.scope!r}: {self.criterion.name} gives each layer its own share; use "
                f"{self.criterion.scope!r}."
            )

    @property
    def chosen_scope(self) -> Scope:
        """That of the settings, or else the criterion's."""
        return self.scope or self.criterion.scope


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
    None for no check. Raises SparseError, as `choose` and `remove` do; what can be known without
    scores, before the criterion, which may take hours, looks at anything.
    """
    structures = tuple(subject.structures)
    _check_before(subject, settings)
    scores = settings.criterion.scores(subject)
    masks = _chosen(scores, structures, settings)
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


def _chosen(scores: Scores, structures: Sequence[Structure], settings: PruneSettings) -> Masks:
    return choose(
        scores,
        structures,
        ratio=settings.ratio,
        scope=settings.chosen_scope,
        heads_multiple_of=settings.heads_multiple_of,
        least=settings.least,
    )


def _check_before(subject: Subject, settings: PruneSettings) -> None:
    """Raise for what would come to nothing, or could not be cut, whatever the scores are."""
    model = unwrapped(subject.model)
    check_plain(model)
    check_class(model)
    name = type(model).__name__
    there = {one.kind for one in subject.structures}
    if missing := [kind for kind in settings.target if kind not in there]:
        raise SparseError(
            f"{name} has no {' and no '.join(missing)} that could be given up; target="
            f"{','.join(settings.target)!r}. It has {', '.join(sorted(there)) or 'none at all'}."
        )
    flat = Scores(values={one.key: torch.zeros(one.units) for one in subject.structures})
    trial = _chosen(flat, subject.structures, settings)
    if trial.density == 1:
        units = {kind: sum(o.units for o in subject.structures if o.kind == kind) for kind in there}
        said = ", ".join(f"{n} {kind}" for kind, n in sorted(units.items()))
        raise SparseError(
            f"ratio={settings.ratio:g} of {said} gives up not a single unit. Take a larger ratio."
        )
