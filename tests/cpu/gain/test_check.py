"""`sparsediff bench --gain`: predictions beside runs, honestly compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from attention_calls import Recorder, call, tensors
from fake_machine import Machine

from sparsediff.cli import bench_gain, main
from sparsediff.gain.check import CheckedGain, least_ratio, step_times
from sparsediff.kernels.errors import SparseError
from sparsediff.search import Step, TokenGrid, Window


def row(predicted: float, ratio: float, runs: tuple[float, ...] = (1.0,)) -> CheckedGain:
    return CheckedGain(
        kind="attention",
        shape="some",
        tokens=2048,
        density=0.25,
        steps=20,
        predicted=predicted,
        ratio=ratio,
        runs=runs,
    )


@pytest.mark.parametrize(
    ("predicted", "ratio", "error", "met", "right"),
    [
        (0.5, 0.5, 0.0, True, True),
        (0.59, 0.5, 0.18, True, True),
        (0.61, 0.5, 0.22, False, True),
        (0.39, 0.5, -0.22, False, True),
        (1.05, 0.95, 0.105, True, False),
        (0.95, 1.05, -0.095, True, False),
    ],
)
def test_how_near_and_whether_right(
    predicted: float, ratio: float, error: float, met: bool, right: bool
) -> None:
    found = row(predicted, ratio)
    assert found.error == pytest.approx(error, abs=0.001)
    assert (found.met, found.right) == (met, right)


def test_steps_take_their_shortest_time() -> None:
    runs = [[(1.0, 0.5), (9.0, 0.25)], [(7.0, 6.0), (1.0, 0.75)]]
    assert least_ratio(runs) == pytest.approx((0.5 + 0.25) / 2)
    assert least_ratio(runs[:1]) == pytest.approx(0.75 / 10)


def test_a_step_is_dense_and_then_sparse() -> None:
    grid, recorder = TokenGrid(frames=2, height=4, width=8), Recorder()
    ticks = iter(range(100))
    here = call(grid, Step(index=0), recorder, tensors(grid))
    method = Window(block_size=8, density=0.4, warmup=0.4)
    found = step_times(here, method, 5, clock=lambda: float(next(ticks)))
    assert found == [(1.0, 1.0)] * 5
    assert recorder.ran == ["dense"] * 2 + ["sparse"] * 3


def test_the_command(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("sparsediff.gain.check.SHORT_SECONDS", 0.0)
    arguments = ["--tokens", "128,192", "--densities", "0.5", "--shape", "1x2x64x16"]
    command = ["bench", "--gain", *arguments, "--steps", "5", "--repeat", "2", "--json"]
    code = main([*command, "--output", str(tmp_path)])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == bench_gain.SCHEMA
    rows = document["rows"]
    assert [(found["tokens"], found["density"]) for found in rows] == [
        (128, 0.5),
        (192, pytest.approx(2 / 3)),
    ]
    # 5 steps: the LSE with the first, both searches, 4 sparse calls, at the fake machine's times.
    for found in rows:
        expected = (1.1 + 2 * 0.45 + 4 * found["density"]) / 5
        assert found["predicted"] == pytest.approx(expected)
        assert len(found["runs"]) == 2
        assert found["ratio"] > 0
    assert code == (0 if all(found["met"] for found in rows) else 1)
    assert json.loads((tmp_path / "gain.json").read_text()) == document
    page = (tmp_path / "gain.md").read_text()
    assert page.startswith("# The gain gate against measured runs\n")
    assert page.count("\n| attention |") == 2
    assert f"$ sparsediff {' '.join(command)}" in page
    assert [case.tokens for case in machine.trials] == [128, 192]


def test_the_summary_names_the_worst() -> None:
    rows = [row(0.5, 0.5), row(0.9, 0.5), row(1.1, 0.95)]
    text = bench_gain.summary(rows)
    assert "2 of 3 predictions within 20 %, 2 decisions right" in text
    assert "+80%, at 2,048 tokens" in text
    assert bench_gain.cells(rows[1])[-2:] == ("+80% !", "sparse")
    assert bench_gain.cells(rows[2])[-1] == "dense, wrong"


@pytest.mark.parametrize("arguments", [["--tokens", "many"], ["--shape", "1x2"], ["--tokens", "0"]])
def test_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--gain", *arguments]) == 1
    assert capsys.readouterr().err


def test_whole_runs_need_times(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsediff.gain.check_runs import check_runs

    monkeypatch.setattr("sparsediff.gain.case.enabled", lambda: False)
    sample = str(Path(__file__).parents[3] / "samples" / "models" / "shapes-wan")
    with pytest.raises(SparseError, match="Nothing can be predicted here"):
        next(check_runs(sample, [(32, 32, 5)], [0.5], device="cpu", repeat=1))
    assert torch.is_grad_enabled()
