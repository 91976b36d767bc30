"""Fingerprint: which model a plan was searched on, and where another one differs from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.models import denoisers, facts_of, self_attention
from sparsediff.plans.component import COMPONENT, Component
from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.records import listed, record
from sparsediff.plans.values import optional, text, whole
from sparsediff.plans.weights_digest import weights_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """The model that a plan was searched on.

    ``components`` the denoisers, in the order in which a session numbers their layers; ``scheduler``
    class and number of ``steps`` of the search; ``weights`` digest of the self-attention weights.
    None for what nobody knows. Raises SparseError for a value of the wrong kind.
    """

    components: tuple[Component, ...]
    scheduler: str | None = None
    steps: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.components, tuple) or not self.components:
            raise SparseError("Fingerprint.components: needs a tuple of at least one component.")
        names = [component.name for component in self.components]
        if len(set(names)) < len(names):
            raise SparseError(f"Fingerprint.components: {', '.join(names)} name one twice.")
        check(self, {key: FINGERPRINT[key] for key in ("scheduler", "steps", "weights")})

    @classmethod
    def of(cls, target: Any, *, steps: int | None = None) -> Fingerprint:
        """The fingerprint of a pipeline or model, and the number of steps that it is run for.

        Raises SparseError when the target is neither, UnsupportedModelError when nothing in it is
        supported.
        """
        models = denoisers(target)
        modules: list[nn.Module] = []
        for model in models.values():
            facts = facts_of(model)
            if facts is not None:
                modules += self_attention(model, facts).values()
        scheduler = None if isinstance(target, nn.Module) else getattr(target, "scheduler", None)
        return cls(
            components=tuple(Component.of(name, model) for name, model in models.items()),
            scheduler=None if scheduler is None else type(scheduler).__name__,
            steps=steps,
            weights=weights_digest(modules),
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the self-attention layers, as `Session.layers` gives them."""
        return tuple(name for component in self.components for name in component.full_names)

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of heads of every layer."""
        return tuple(heads for component in self.components for heads in component.heads)

    def differences(self, other: Fingerprint, owner: str = "the plan") -> list[str]:
        """Every field in which the other's architecture differs, one sentence each; [] if it fits.

        `owner` is whose fingerprint this is, in these sentences. A bare model
        fits the one component of a pipeline. Scheduler, steps and weights are not part of the
        architecture: a plan searched with others works.
        """
        mine, theirs = self.components, other.components
        if len(mine) == len(theirs) == 1 and "" in (mine[0].name, theirs[0].name):
            mine, theirs = (replace(mine[0], name=""),), (replace(theirs[0], name=""),)
        ours, found = {c.name: c for c in mine}, {c.name: c for c in theirs}
        if list(ours) != list(found):
            return [f"components: {owner} has {_listing(mine)}, this model {_listing(theirs)}"]
        return [line for name in ours for line in ours[name].differences(found[name], owner)]


def _listing(components: tuple[Component, ...]) -> str:
    return ", ".join(f"{c.name} ({c.model})" if c.name else c.model for c in components)


FINGERPRINT: dict[str, Reader[Any]] = {
    "components": listed(record(Component, COMPONENT), least=1),
    "scheduler": optional(text),
    "steps": optional(whole(1, 10**6)),
    "weights": optional(text),
}
