"""Every kernel in every tile of the table, compiled for GPUs that are not there."""

from __future__ import annotations

import os

import pytest
from configurations import Configuration, every_case, sample
from requirements import misses

CASES = sample() if os.environ.get("KERNEL_GATE_SAMPLE") == "1" else every_case()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiles_as_it_must(case: Configuration) -> None:
    assert misses(case) == []


def test_no_launch_is_compiled_twice() -> None:
    assert len(set(CASES)) == len(CASES)
