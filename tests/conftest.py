"""For every test: "auto" keeps its fixed order, so that no result depends on a timing.

With the oldest supported diffusers a pipeline that it cannot load is skipped, with its words.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from importlib.metadata import version

import pytest

os.environ["SPARSEDIFF_RANKING"] = "off"


def _skip_what_the_floor_has_not(error: Exception) -> None:
    from sparsediff.environment import TESTED

    words = str(error).strip()
    unknown = words.startswith(("Failed to import diffusers.", "module diffusers has no attribute"))
    if unknown and version("diffusers") == TESTED["diffusers"][0]:
        pytest.skip(
            f"diffusers {version('diffusers')}: {words.splitlines()[-1].partition(' (/')[0]}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    try:
        return (yield)
    except (AttributeError, RuntimeError) as error:
        _skip_what_the_floor_has_not(error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    try:
        return (yield)
    except (AttributeError, RuntimeError) as error:
        _skip_what_the_floor_has_not(error)
        raise
