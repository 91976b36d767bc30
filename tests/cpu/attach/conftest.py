"""No test leaves a session enabled for the next one; `make models` writes what these tests found."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from models_table import Outcomes, write

from sparsediff import api

OUTCOMES = Outcomes()
TABLE = os.environ.get("MODELS_TABLE")


@pytest.fixture(autouse=True)
def _disable_all() -> Iterator[None]:
    yield
    for session in list(api._enabled):
        session.disable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if TABLE and "::TestFamily::" in report.nodeid and (report.when == "call" or report.failed):
        OUTCOMES.note(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if TABLE and not hasattr(session.config, "workerinput"):  # the one that hears of all workers
        write(Path(TABLE), OUTCOMES)
