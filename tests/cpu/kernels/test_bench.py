"""The benchmark: checks before it times, and gives no ratio for wrong results."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from attention_oracle import PATH

from sparsediff.bench import BenchCase, BenchRow, measure_kernels
from sparsediff.cli import bench
from sparsediff.kernels import SparseError
from sparsediff.kernels.cpu.backend import CpuBackend
from sparsediff.kernels.flex import FlexBackend

CASE = BenchCase(heads=2, tokens=96, dim=16, block=32, repeat=3)


@pytest.fixture(autouse=True)
def without_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlexBackend, "reasons", lambda self, inputs: ["slow to compile"])


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    return parser.parse_args(["bench", *words])


def test_rows(ran: list[str]) -> None:
    rows = list(measure_kernels(CASE, [0.34, 1.0]))
    names = [row.kernel.split(" (")[0] for row in rows]
    assert names == [
        "dense with LSE",
        *["cpu", "gather"] * 2,
        "block mass, cpu",
        "block mass, gather",
    ]
    assert [round(row.density, 2) for row in rows[1:5]] == [0.33, 0.33, 1.0, 1.0]
    for row in rows:
        assert row.match
        assert len(row.seconds) == len(row.ratios) == 3
        assert row.ratio is not None
        assert row.ratio > 0
    # Each kernel runs once for its result and once a round, at two densities and for the mass.
    assert ran.count(PATH["cpu"]) == 3 * 4 + (0 if PATH["cpu"] == "native" else 3 * 4)
    assert ran.count("reference") == 4


def test_wrong_results_have_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CpuBackend.attention
    monkeypatch.setattr(CpuBackend, "attention", lambda self, i: (right(self, i)[0] * 1.001, None))
    rows = {row.kernel.split(" (")[0]: row for row in measure_kernels(CASE, [0.5])}
    assert rows["cpu"].ratio is None
    assert not rows["cpu"].match
    assert rows["gather"].ratio is not None


def test_nan_does_not_match() -> None:
    values = {"kernel": "x", "density": 1.0, "seconds": (1.0,), "ratios": (1.0,), "limit": 1.0}
    assert not BenchRow(**values, error=float("nan")).match
    assert not BenchRow(**values, error=float("inf")).match


def test_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--kernel", "--shape", "1x2x96x16", "--block-size", "32", "--repeat", "2"]
    assert bench.run(parse(*words, "--densities", "0.5")) == 0
    text = capsys.readouterr().out
    assert "x dense" in text
    assert "block mass, cpu" in text
    assert bench.run(parse(*words, "--densities", "0.5", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.bench/1"
    assert found["shape"] == "1x2x96x16"
    assert found["threads"] == torch.get_num_threads()
    assert {row["match"] for row in found["rows"]} == {True}


def test_exit_code_tells_of_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsediff.bench.turns.MASS_LIMIT", -1.0)
    words = ["--kernel", "--shape", "1x1x64x8", "--repeat", "1", "--densities", "1"]
    assert bench.run(parse(*words)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --kernel"),
        (["--kernel", "--shape", "1x2x3"], "give it like 1x8x4096x64"),
        (["--kernel", "--shape", "1x2x0x8"], "at least 1"),
        (["--kernel", "--densities", "a"], "not a list of numbers"),
        (["--kernel", "--densities", "0.5,1.5"], "density 1.5 is not in"),
        (["--kernel", "--repeat", "0"], "at least 1"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(SparseError, match=message):
        bench.run(parse(*words))
