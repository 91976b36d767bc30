"""`sparsediff bench --rank`: measured, printed, and followed by "auto"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsediff.cli import main
from sparsediff.kernels import BlockMask
from sparsediff.kernels.flex import FlexBackend
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.registry import auto_order


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("SPARSEDIFF_RANKING", "on")
    monkeypatch.setattr(FlexBackend, "reasons", lambda self, inputs: ["slow to compile"])


def test_the_rank_is_kept_and_followed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "--rank", "--head-dim", "32", "--block-size", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["head_dim"]) == ("sparsediff.rank/1", 32)
    times = found["seconds"]
    assert "gather" in times
    assert all(seconds > 0 for seconds in times.values())
    assert (tmp_path / "ranking.json").exists()
    q = torch.randn(1, 256, 2, 32)
    mask = BlockMask.full(block_size=32, q_len=256, kv_len=256)
    order = auto_order(AttentionInputs(q=q, k=q, v=q, mask=mask, scale=1.0))
    names = [getattr(backend, "name", backend) for backend in order]
    # A later backend passes an earlier one only with a tenth to spare.
    assert times[names[0]] <= 1.12 * min(times.values())


def test_what_is_not_ranked_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rank", "--block-size", "512"]) != 0
    assert "512" in capsys.readouterr().err
