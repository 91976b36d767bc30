"""The criteria by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.criteria.ecodiff import EcoDiff
from sparsediff.prune.criteria.fisher import Fisher
from sparsediff.prune.criteria.magnitude import Magnitude
from sparsediff.prune.criteria.owl import OWL
from sparsediff.prune.criteria.random_units import RandomUnits
from sparsediff.prune.criteria.wanda import Wanda

CRITERIA: dict[str, type[Criterion]] = {
    criterion.name: criterion for criterion in (EcoDiff, Fisher, Magnitude, Wanda, OWL, RandomUnits)
}


def criterion_of(name: str, options: Mapping[str, Any] | None = None) -> Criterion:
    """A criterion by its name, with some fields set; SparseError for an unknown name or field."""
    if name not in CRITERIA:
        near = get_close_matches(name, CRITERIA, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SparseError(f"Unknown criterion {name!r}; choose one of {', '.join(CRITERIA)}.{hint}")
    return CRITERIA[name]().with_options(**(options or {}))
