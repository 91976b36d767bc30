"""`sparsediff doctor` predicts what the session will: the same function, the same figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_machine import Machine

from sparsediff.cli import main
from sparsediff.compare import _require_sparse
from sparsediff.estimate import estimate
from sparsediff.gain import block
from sparsediff.gain.case import GainCase
from sparsediff.gain.outlook import Outlook, outlook, torch_attention
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.report import RunReport
from sparsediff.search import AdaSpa

SAMPLE = str(Path(__file__).parents[3] / "samples" / "models" / "shapes-wan")
SIZE = (32, 32, 5)  # 192 tokens
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a step takes as long as its attention."""
    monkeypatch.setattr("sparsediff.gain.outlook.rest_over_attention", lambda *_, **__: 1.0)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["doctor", "--json", "--model", SAMPLE, *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found["model"]


def in_a_run(method: AdaSpa) -> dict[str, Any]:
    pipe = load_pipeline(ModelFiles(name=SAMPLE), dtype="float32", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    session = pipe.enable_sparse_attention(method)
    width, height, frames = SIZE
    pipe(
        "a circle",
        width=width,
        height=height,
        num_frames=frames,
        num_inference_steps=20,  # as in the model's generation.json
        max_sequence_length=32,
        output_type="latent",
    )
    [found] = session.report().predictions
    return found


@pytest.mark.parametrize("setup", [0.0, 2.0])
def test_doctor_says_what_the_session_says(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setup: float,
) -> None:
    monkeypatch.setattr("sparsediff.loading._fast_bfloat16", lambda: False)  # float32, as the run
    machine.setup = setup
    found = doctor(capsys, "--size", "32x32x5", "--density", "0.3")["gain"]
    timed = len(machine.trials)
    expected = in_a_run(AdaSpa(density=0.3))
    assert {name: found[name] for name in expected} == expected
    assert expected["pays"] is (setup == 0)
    assert len(machine.trials) == timed, "the run reads what doctor has measured"


def test_the_speed_up_of_the_loop() -> None:
    """Half of the time attention, which takes 0.4 of it: 1 / 0.7."""
    prediction: Any = type("P", (), {"ratio": 0.4, "to_dict": lambda self: {}})()
    found = Outlook(prediction=prediction, attention_share=0.5, break_even=100)
    assert found.speedup == pytest.approx(1 / 0.7)


def test_break_even_and_the_text(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.setups = {128: 3.0}  # slower than dense there, faster from 256 on
    gain = doctor(capsys, "--size", "64x64x5")["gain"]
    assert 128 < gain["break_even"] < 256
    assert gain["attention_share"] == 0.5
    assert main(["doctor", "--model", SAMPLE, "--size", "64x64x5"]) == 0
    text = capsys.readouterr().out
    assert f"yes; from about {gain['break_even']} tokens on" in text
    assert (
        f"{gain['ratio']:.2f} of dense attention's in 20 steps at density {gain['density']:.2f}"
        in text
    )
    assert f"about {gain['speedup']:.2f}x in the denoising loop" in text


def test_where_it_does_not_pay(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.setup = 2.0
    assert main(["doctor", "--model", SAMPLE]) == 0
    text = capsys.readouterr().out
    assert "no, at no length that was timed" in text
    assert "does not pay at this size" in text.splitlines()[-1]
    assert "--no-gate" in text.splitlines()[-1]
    machine.setup = 0.0
    found = doctor(capsys, "--method", "true-mass", "--size", "64x64x5")
    assert found["gain"]["pays"] is False  # it searches in every call


def test_nothing_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    """With SPARSEDIFF_RANKING=off, which every test has."""
    assert doctor(capsys)["gain"] == {"unknown": "SPARSEDIFF_RANKING=off"}
    assert main(["doctor", "--model", SAMPLE]) == 0
    assert "not timed: SPARSEDIFF_RANKING=off" in capsys.readouterr().out


def test_a_figure_of_doctor_is_the_outlook(machine: Machine) -> None:
    figures = estimate(ModelFiles(name=SAMPLE), size=SIZE, dtype="float32")
    found = outlook(figures, AdaSpa(), CPU)
    assert isinstance(found, Outlook)
    assert (found.prediction.tokens, found.prediction.steps) == (192, 20)
    meta = outlook(figures, AdaSpa(), torch.device("meta"))
    assert meta == "nothing is timed on meta"


CASE = GainCase(tokens=192, streams=6, head_dim=32, dtype=torch.float32, device=CPU, block_size=64)


def test_a_stand_in_block_has_the_weights_it_is_given() -> None:
    """As nearly as a feed-forward layer of a multiple of 64 allows: half a step of two matrices."""
    found = block.StandInBlock.of(CASE, width=192, weights=600_000)
    weights = 4 * found.square.numel() + found.up.numel() + found.down.numel()
    assert found.up.shape[0] % 64 == 0
    assert abs(weights - 600_000) <= 64 * 192
    out = found.run()
    assert out.shape == (1, 192, 192)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize(("tokens", "streams"), [(192, 6), (192, 60), (40_000, 6)])
def test_the_rest_is_linear_in_tokens_and_attention_quadratic(
    monkeypatch: pytest.MonkeyPatch, tokens: int, streams: int
) -> None:
    """A block of t tokens that takes 2 s, beside an attention call of the timed size that takes 1 s."""
    case = GainCase(
        tokens=tokens, streams=streams, head_dim=32, dtype=torch.float32, device=CPU, block_size=64
    )
    monkeypatch.setattr(block, "_timed", lambda *_: (2.0, 96))
    found = block.rest_over_attention(case, torch_attention, width=192, weights=600_000)
    samples = streams / 6
    assert found == pytest.approx(2.0 * samples * tokens / 96 / case.scale)


def test_generate_may_run_dense_only_by_the_gate() -> None:
    dense = RunReport(dense_calls=3, fallbacks={"no grid": 3}, method={"warmup": 0.2})
    with pytest.raises(SparseError, match="No attention call ran sparse"):
        _require_sparse(dense, steps=3)
    gated = RunReport(dense_calls=3, fallbacks={"x": 3}, predictions=[{"pays": False}])
    _require_sparse(gated, steps=3)
    _require_sparse(RunReport(sparse_calls=1), steps=3)


def test_generate_says_what_the_gate_decided(
    machine: Machine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    machine.setup = 2.0
    command = [
        "generate",
        SAMPLE,
        "a circle",
        "--frames",
        "5",
        "--steps",
        "2",
        "--method",
        "window",
    ]
    assert main([*command, "-o", str(tmp_path / "a.gif")]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.split()[:1] == ["gate"])
    assert "dense" in line
    assert "--no-gate runs sparse" in line
    assert main([*command, "--no-gate", "--json", "-o", str(tmp_path / "b.gif")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["predictions"], found["dense_calls"]) == ([], 0)
    assert found["sparse_calls"] == 2 * 6 * 2  # steps, layers, guidance branches
