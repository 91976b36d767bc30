"""LonePlan: a plan that is one JSON text with everything in it, as a file or as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparsediff.kernels.errors import PlanError
from sparsediff.plans.file_limits import PLAN, TABLES, check_size, refuse_pickles
from sparsediff.plans.plan_folder import read_file


@dataclass(frozen=True, kw_only=True, slots=True)
class LonePlan:
    """The ``content`` of a plan's JSON, which errors call ``label``."""

    SUFFIX: ClassVar[str] = ".json"

    label: str
    content: bytes

    @classmethod
    def of_file(cls, path: Path) -> LonePlan:
        """Read a file; raises PlanError when it is larger than any plan, or a pickle."""
        try:
            return cls(label=str(path), content=read_file(path, PLAN))
        except OSError as error:
            raise PlanError(f"{path} could not be read: {error}") from None

    def read(self, name: str) -> bytes:
        """The content as the file `name` of a plan.

        Raises PlanError when it is larger than any plan, a pickle, or needs a file beside it.
        """
        if name != PLAN:
            raise PlanError(
                f"its stripes are in a file beside it, {TABLES}. Give the folder that holds both "
                f"{PLAN} and {TABLES}, or save the plan as one file with PatternPlan.to_json."
            )
        check_size(PLAN, len(self.content))
        refuse_pickles(self.label, self.content[:8])
        return self.content
