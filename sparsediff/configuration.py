"""Configuration: the method that a name, a configuration, a plan or its folder stands for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans import PatternPlan
from sparsediff.search import METHODS, Method, SparseVDiT

# What `enable_sparse_attention` takes: a method's name, folder or Hub id; a Path is always a folder.
Choice = str | os.PathLike[str] | Method | PatternPlan
_SHOWN = 200  # characters of what was given: a PatternTable would fill many screens


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """A method, and the plan that its patterns are from, if any."""

    method: Method
    plan: PatternPlan | None = None

    @classmethod
    def of(cls, choice: Choice, overrides: Mapping[str, Any]) -> Configuration:
        """What a choice stands for, with some fields of its method changed.

        Raises SparseError for an unknown method or field, PlanError for a plan that cannot be read.
        """
        if isinstance(choice, Method):
            return cls(method=choice.with_options(**overrides) if overrides else choice)
        if isinstance(choice, str) and choice in METHODS:
            return cls(method=METHODS[choice]().with_options(**overrides))
        if choice == SparseVDiT.name:
            raise SparseError(
                f"{choice!r} runs the patterns of a plan: pass the plan itself, its folder or its Hub "
                f"id. `sparsediff search` finds one for a model."
            )
        if isinstance(choice, PatternPlan):
            plan = choice
        elif isinstance(choice, os.PathLike) or (isinstance(choice, str) and _is_place(choice)):
            plan = PatternPlan.from_pretrained(choice)
        else:
            raise SparseError(_unknown(choice))
        return cls(method=plan.method(**overrides), plan=plan)

    def check(self, target: Any) -> None:
        """Raise PlanMismatchError unless the plan, if there is one, fits a pipeline or model."""
        if self.plan is not None:
            self.plan.check(target)


def _is_place(name: str) -> bool:
    """Whether a text means a folder, a file or a Hub id; no method's name has a slash or an ending."""
    # os.path.exists, unlike Path.exists, takes any text: one that is too long does not exist.
    return "/" in name or os.sep in name or "." in name or os.path.exists(name)  # noqa: PTH110


def _unknown(choice: object) -> str:
    near = get_close_matches(str(choice), METHODS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = repr(choice)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return (
        f"Unknown method {shown}; choose one of {', '.join(METHODS)} or pass a configuration such "
        f"as sparsediff.AdaSpa(density=0.25), or a plan: a PatternPlan, its folder or its Hub id.{hint}"
    )
