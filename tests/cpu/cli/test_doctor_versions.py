"""`sparsediff doctor` warns of a diffusers that was never tested, and goes on."""

from __future__ import annotations

import json

import pytest

from sparsediff import environment
from sparsediff.cli import main


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Pretend that this version of diffusers is installed."""
    real = environment.version
    monkeypatch.setattr(
        environment,
        "version",
        lambda package: request.param if package == "diffusers" else real(package),
    )
    return request.param


@pytest.mark.parametrize("installed", ["0.40.9", "0.43.0.dev0", "1.0"], indirect=True)
def test_another_version_is_a_warning(installed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert f"diffusers {installed} was never tested" in warning
    assert main(["doctor"]) == 0
    assert f"warning: {warning}\n" in capsys.readouterr().out


@pytest.mark.parametrize("installed", ["0.41.0", "0.41.7", "0.42.1"], indirect=True)
def test_a_tested_version_is_none(installed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["diffusers"] == installed
    assert found["warnings"] == []
