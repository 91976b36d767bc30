"""The floor that CI tests is the one that pyproject.toml promises."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sparsediff.environment import TESTED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROMISED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lora"]]


def pinned(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("text", PROMISED)
def test_the_floor_is_tested(text: str) -> None:
    requirement = Requirement(text)
    name = canonicalize_name(requirement.name)
    (bound,) = requirement.specifier
    newest = pinned("constraints.txt").get(name)
    assert bound.operator == ">="
    assert newest is None or newest >= Version(bound.version)
    if name == "torch":  # its floor has no plain build for the CPU: constraints-floor.txt
        assert pinned("constraints-floor.txt")[name] == newest
    else:
        assert pinned("constraints-floor.txt")[name] == Version(bound.version)


@pytest.mark.parametrize("package", TESTED)
def test_the_range_that_doctor_knows_is_the_tested_one(package: str) -> None:
    pins = [pinned(file)[package] for file in ("constraints-floor.txt", "constraints.txt")]
    assert [Version(text) for text in TESTED[package]] == pins
