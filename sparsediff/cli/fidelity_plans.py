"""The plans that `sparsediff fidelity` measures beside the methods that need none."""

from __future__ import annotations

from collections.abc import Sequence

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.search.patterns.pattern import Online

_NEAR = 0.02  # a plan is compared in the column whose density is at most so far away


def placed_plans(
    folders: Sequence[str], densities: Sequence[float]
) -> dict[tuple[str, float], PatternPlan]:
    """The plans by the name and the density of their place in the table.

    Raises SparseError for a plan that cannot be read and for one whose density is not in the table.
    """
    found: dict[tuple[str, float], PatternPlan] = {}
    for folder in folders:
        plan = PatternPlan.from_pretrained(folder)
        density = min(densities, key=lambda d: abs(d - plan.table.density))
        if abs(density - plan.table.density) > _NEAR:
            raise SparseError(
                f"The plan {folder} has density {plan.table.density:.3f}, which is none of "
                f"{', '.join(map(str, densities))}. Give it with --densities."
            )
        online = Online.mode in plan.table.modes
        name = "plan + AdaSpa" if online else "plan"
        if (name, density) in found:
            raise SparseError(f"Two plans of density {density} are given; give one of each kind.")
        found[name, density] = plan
    return found
