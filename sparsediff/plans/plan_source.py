"""Where a plan is read from: a folder, a file or a repository of the Hub, by what the user wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from sparsediff.kernels.errors import PlanError
from sparsediff.plans.file_limits import PLAN, refuse_pickles
from sparsediff.plans.hub_plan import HubPlan
from sparsediff.plans.lone_plan import LonePlan
from sparsediff.plans.plan_folder import PlanFolder


class PlanSource(Protocol):
    """The files of one plan."""

    @property
    def label(self) -> str:
        """What errors call it."""

    def read(self, name: str) -> bytes:
        """The content of a file of the plan; raises PlanError."""


def plan_source(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> PlanSource:
    """The folder, JSON file or Hub repository that `name` stands for; a Path is no Hub id.

    Raises PlanError when it is another file, or nothing and no id such as "user/plan".
    """
    given = os.fspath(name)
    if not isinstance(given, str) or not given:
        raise PlanError(f"plan={given!r}: needs a folder, a Hub id or a PatternPlan.")
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            return PlanFolder(path=path)
        if path.is_file() and path.suffix.lower() == LonePlan.SUFFIX:
            return LonePlan.of_file(path)
        if path.is_file():
            with path.open("rb") as file:
                refuse_pickles(given, file.read(8))
    except (OSError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise PlanError(f"{given[:200]} could not be read: {error}") from None
    refuse_pickles(given)
    if path.exists():
        raise PlanError(
            f"{given} is a file, and no {LonePlan.SUFFIX}; give the folder that holds {PLAN}."
        )
    if not isinstance(name, str) or not looks_like_hub_id(given):
        raise PlanError(
            f"There is no plan at {given!r}: needs a folder that holds {PLAN}, or a Hub id such as "
            f"user/plan."
        )
    return HubPlan(repo_id=given, revision=revision, token=token)


def looks_like_hub_id(name: str) -> bool:
    """Whether a text has the shape of "user/name"."""
    return name.count("/") == 1 and name[0] not in "./~" and not name.endswith("/")
