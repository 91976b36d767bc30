"""EcoDiff (arXiv 2412.02852): what the whole denoising chain can do without, learnt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.choice import Scope
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.learning import LearnFigures, LearnSettings, learn_masks
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import KINDS
from sparsediff.prune.subject import Subject
from sparsediff.search.method import changed


@dataclass(frozen=True, kw_only=True, slots=True)
class EcoDiff(Criterion):
    """Logits of gates that were trained on the final latents; see `LearnSettings`.

    Options are those of the settings, but for ``target`` and ``call``, which the subject says.
    """

    name: ClassVar[str] = "ecodiff"
    scope: ClassVar[Scope] = "kind"
    learns: ClassVar[bool] = True

    settings: LearnSettings = field(default_factory=LearnSettings)

    @property
    def needs_prompts(self) -> bool:
        """Always: the chain starts from them."""
        return True

    def scores(self, subject: Subject) -> Scores:
        """Learn, in the subject's folder; resumed from ``subject.resume`` where that says so.

        Raises SparseError for a subject without pipeline, prompts or folder.
        """
        subject.check_prompts(self.name)
        if subject.folder is None:
            raise SparseError("ecodiff keeps its training in a folder; the subject has none.")
        check_own(subject, self.name)
        kinds = {one.kind for one in subject.structures}
        target = tuple(kind for kind in KINDS if kind in kinds)
        settings = replace(self.settings, target=target, call=subject.call)
        first = settings.draws_first
        rounds = first + settings.iterations

        def tell(figures: LearnFigures, seconds: float) -> None:
            subject.progress(first + figures.iteration, rounds)

        return learn_masks(
            subject.pipe,
            subject.prompts,
            settings,
            subject.folder,
            resume=subject.resume,
            tell=tell,
            tell_start=lambda done: subject.progress(done, rounds),
        )

    def with_options(self, **options: Any) -> Self:
        """A copy with some settings changed; an unknown one is an error that names the nearest."""
        return replace(self, settings=changed(self.settings, **options))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The settings' defaults, without what the subject says."""
        return _own(LearnSettings())

    def to_dict(self) -> dict[str, Any]:
        """Name and settings, without what the subject says."""
        return {"name": self.name, **_own(self.settings)}


def check_own(subject: Subject, who: str) -> None:
    """Raise SparseError where the subject's pipeline would run another model than the subject's."""
    if prunable_model(subject.pipe)[1] is not subject.model:
        raise SparseError(
            f"The subject's {type(subject.model).__name__} is not the model of its pipeline, "
            f"which is the one that {who} runs; pass that."
        )


def _own(settings: LearnSettings) -> dict[str, Any]:
    return {n: value for n, value in settings.to_dict().items() if n not in {"target", "call"}}
