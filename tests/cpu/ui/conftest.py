"""Shared by the app's tests: one toy model for all of them."""

import pytest
from toy_folder import toy_folder

from sparsediff.ui import job
from sparsediff.ui.comparison import Comparison


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("toy") / "toy-wan")


@pytest.fixture(scope="session")
def comparison(toy):
    return Comparison(toy, device="cpu")


@pytest.fixture(autouse=True)
def _all_news(monkeypatch):
    """The steps of a toy are quick, and tests ask which were told."""
    monkeypatch.setattr(job, "PACE", 0)
