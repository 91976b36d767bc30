"""No test leaves a session enabled for the next one; `make models` writes what these tests found.

`pipe` is a tiny Wan, `expected` what it makes of the shared options with nothing else switched on.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from counted import OPTIONS
from models_table import Outcomes, write
from tiny_pipelines import FAMILIES, wan

from sparsediff import api

OUTCOMES = Outcomes()
TABLE = os.environ.get("MODELS_TABLE")


@pytest.fixture(autouse=True)
def _disable_all() -> Iterator[None]:
    yield
    for session in list(api._enabled):
        session.disable()


@pytest.fixture
def pipe() -> Any:
    return wan()


@pytest.fixture(scope="session")
def expected() -> torch.Tensor:
    pipe = wan()
    pipe.enable_sparse_attention(**OPTIONS)
    return FAMILIES["wan"].run(pipe)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if TABLE and "::TestFamily::" in report.nodeid and (report.when == "call" or report.failed):
        OUTCOMES.note(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if TABLE and not hasattr(session.config, "workerinput"):  # the one that hears of all workers
        write(Path(TABLE), OUTCOMES)
