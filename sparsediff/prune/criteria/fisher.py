"""Fisher information (after Kwon et al., arXiv 2204.09656), of whole denoising chains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import nn

from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.distill.training.sample_order import SampleOrder
from sparsediff.prune.choice import Scope
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.criteria.ecodiff import check_own
from sparsediff.prune.frozen import frozen
from sparsediff.prune.learning import LearnSettings
from sparsediff.prune.learning.chain import chain_of
from sparsediff.prune.learning.checkpointed_blocks import checkpointed_blocks
from sparsediff.prune.learning.fisher import Along, check_along, fisher_information
from sparsediff.prune.scores import Scores
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Fisher(Criterion):
    """How far the final latents move when a unit is closed, to first order; see `fisher_information`.

    Nothing is trained: of ``fisher_draws`` samples, ``batch`` at a time, each takes a run of ``steps``
    steps and its backward pass; ``fisher_along`` "prompts", or for every other sample "both", another
    run. Scores are of one scale in all layers. ``guidance``, ``latents_every``, ``precision``,
    ``gradient_checkpointing``: as of `LearnSettings`; ecodiff can start from the same.
    """

    name: ClassVar[str] = "fisher"
    scope: ClassVar[Scope] = "kind"

    steps: int = 20
    guidance: float | None = None
    fisher_draws: int = 40
    fisher_along: Along = "both"
    batch: int = 1
    precision: str = "no"
    latents_every: int = 2
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._settings({})

    @property
    def needs_prompts(self) -> bool:
        """Always: the chain starts from them."""
        return True

    def scores(self, subject: Subject) -> Scores:
        """Raises SparseError for a subject without pipeline or prompts."""
        subject.check_prompts(self.name)
        check_own(subject, self.name)
        check_along(self.fisher_along, subject.prompts)
        settings, model = self._settings(subject.call), subject.model
        chain, conditions = chain_of(
            subject.pipe,
            model,
            subject.prompts,
            call=settings.call,
            steps=settings.steps,
            guidance=settings.guidance,
            latents_every=settings.latents_every,
        )
        accelerator = accelerator_for(settings, None, cpu=_on_cpu(model))
        with frozen(model), checkpointed_blocks(model, settings.gradient_checkpointing):
            return fisher_information(
                chain,
                subject.structures,
                SampleOrder(conditions, settings, accelerator),
                draws=self.fisher_draws,
                along=self.fisher_along,
                tell=lambda done: subject.progress(done, self.fisher_draws),
            )

    def _settings(self, call: Any) -> LearnSettings:
        return LearnSettings(**asdict(self), accumulation=1, call=call)


def _on_cpu(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cpu"
