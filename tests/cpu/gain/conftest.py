"""A fake machine for the gain gate, and no session left enabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import Machine

from sparsediff import api
from sparsediff.gain.times import AttentionTimes
from sparsediff.gain.trial import GainTrial
from sparsediff.kernels import measured_file


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Kernels that take their share of dense attention's time, and an empty file of measured times."""
    found = Machine()
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sparsediff.gain.case.enabled", lambda: True)

    def times(trial: GainTrial, clock: object = None) -> AttentionTimes:
        return found.times(trial)

    monkeypatch.setattr(GainTrial, "times", times)
    measured_file.warn_once.cache_clear()
    return found


@pytest.fixture(autouse=True)
def _disable_all() -> Iterator[None]:
    yield
    for session in list(api._enabled):
        session.disable()
