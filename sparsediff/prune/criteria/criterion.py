"""Criterion: a frozen configuration that says how much every unit of a model matters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from sparsediff.prune.choice import Scope
from sparsediff.prune.scores import Scores
from sparsediff.prune.subject import Subject
from sparsediff.search.method import changed


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion(ABC):
    """Base of every criterion; ``scope`` is how its scores are meant to be chosen from, the only way
    where it ``moves_shares``, giving each layer one of its own. One that ``learns`` keeps a log in
    the subject's folder.

    Raises SparseError for a value out of range, and for unknown fields in `with_options`.
    """

    name: ClassVar[str] = ""
    scope: ClassVar[Scope] = "layer"
    moves_shares: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    @property
    def needs_prompts(self) -> bool:
        """Whether it runs the pipeline over prompts."""
        return False

    @abstractmethod
    def scores(self, subject: Subject) -> Scores:
        """How much the units of the subject's structures matter; the model is as it was afterwards.

        Raises SparseError where the subject lacks what the criterion needs.
        """

    def with_options(self, **options: Any) -> Self:
        """A copy with some fields changed; an unknown field is an error that names the nearest."""
        return changed(self, **options)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Every option that `with_options` takes, with its default."""
        return asdict(cls())

    def to_dict(self) -> dict[str, Any]:
        """Name and fields, for reports and files."""
        return {"name": self.name, **asdict(self)}
