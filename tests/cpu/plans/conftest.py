"""A small plan that holds every mode, and the same on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plan_files import plan_of
from tiny_pipelines import wan

from sparsediff import api
from sparsediff.plans import PatternPlan


@pytest.fixture(autouse=True)
def _disable_all() -> Iterator[None]:
    yield
    for session in list(api._enabled):
        session.disable()


@pytest.fixture(scope="session")
def pipe() -> Any:
    return wan()


@pytest.fixture(scope="session")
def plan(pipe: Any) -> PatternPlan:
    return plan_of(pipe)


@pytest.fixture
def folder(plan: PatternPlan, tmp_path: Path) -> Path:
    plan.save_pretrained(tmp_path / "plan")
    return tmp_path / "plan"
