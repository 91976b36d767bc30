"""Component: what a plan has to know of one denoiser, so that it fits no other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.models import facts_of, head_shape, self_attention
from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.records import listed
from sparsediff.plans.values import text, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One denoiser of a pipeline.

    ``name`` in the pipeline, "" for a bare model; ``model`` its class; ``grid_rule`` by which its
    tokens are laid out. ``layers`` names of its self-attention modules in order, with the number of
    ``heads`` and the ``head_dims`` of each. Raises SparseError when their lengths disagree.
    """

    name: str
    model: str
    grid_rule: str
    layers: tuple[str, ...]
    heads: tuple[int, ...]
    head_dims: tuple[int, ...]

    def __post_init__(self) -> None:
        check(self, COMPONENT)
        for name in ("layers", "heads", "head_dims"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.layers) == len(self.heads) == len(self.head_dims):
            raise SparseError(
                f"{len(self.layers)} layers, {len(self.heads)} heads and {len(self.head_dims)} "
                f"head_dims; needs as many of each."
            )

    @classmethod
    def of(cls, name: str, model: nn.Module) -> Component:
        """The component that a supported model is; `name` is its name in the pipeline."""
        facts = facts_of(model)
        if facts is None:
            raise UnsupportedModelError(f"{type(model).__name__} is not supported.")
        modules = self_attention(model, facts)
        shapes = [head_shape(module) for module in modules.values()]
        return cls(
            name=name,
            model=facts.model,
            grid_rule=facts.grid_rule,
            layers=tuple(modules),
            heads=tuple(heads for heads, _ in shapes),
            head_dims=tuple(dim for _, dim in shapes),
        )

    @property
    def full_names(self) -> tuple[str, ...]:
        """Names of the layers, as `Session.layers` gives them."""
        return tuple(f"{self.name}.{layer}" if self.name else layer for layer in self.layers)

    def differences(self, other: Component, owner: str = "the plan") -> list[str]:
        """Every field but the name in which the other one differs, one sentence each.

        `owner` is whose component this is, in these sentences.
        """
        where = f" of {self.name}" if self.name else ""
        found = [
            f"{words}{where}: {owner} has {getattr(self, name)}, this model {getattr(other, name)}"
            for name, words in (("model", "class"), ("grid_rule", "grid rule"))
            if getattr(self, name) != getattr(other, name)
        ]
        if len(self.layers) != len(other.layers):
            return [
                *found,
                f"layers{where}: {owner} has {len(self.layers)}, this model {len(other.layers)}",
            ]
        for name, words in (("layers", "names"), ("heads", "heads"), ("head_dims", "head dim")):
            pairs = zip_longest(getattr(self, name), getattr(other, name))
            unequal = [(i, a, b) for i, (a, b) in enumerate(pairs) if a != b]
            if unequal:
                first, mine, theirs = unequal[0]
                more = f", and {len(unequal) - 1} layers more" if len(unequal) > 1 else ""
                found.append(
                    f"{words}{where}: {owner} has {mine} in layer {first}, this model {theirs}{more}"
                )
        return found


COMPONENT: dict[str, Reader[Any]] = {
    "name": text,
    "model": text,
    "grid_rule": text,
    "layers": listed(text, least=1),
    "heads": listed(whole(1, 10**4), least=1),
    "head_dims": listed(whole(1, 10**4), least=1),
}
