"""`sparsediff bench --transformer` from its arguments to what it prints."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from narrow_architectures import narrow

from sparsediff.cli import bench_transformer, main
from sparsediff.transformer_bench import architectures, measurement
from sparsediff.transformer_bench.denoising import StepTime
from sparsediff.transformer_bench.result import StepTimes

TINY = ["--size", "128x128x9", "--layers", "1", "--steps", "6", "--density", "0.3"]
TINY += ["--block-size", "16", "--repeat", "2"]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = {name: narrow(name) for name in bench_transformer.NAMES}
    monkeypatch.setattr(architectures, "ARCHITECTURES", thin)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--transformer", "cogvideox1.5-5b", *TINY, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.bench-transformer/1"
    assert (found["name"], found["layers"], found["all_layers"]) == ("cogvideox1.5-5b", 1, 42)
    assert (found["size"], found["grid"], found["tokens"]) == ([128, 128, 9], [2, 8, 8], 144)
    assert (found["density"], found["dense_kernel"], found["dtype"]) == (0.3, "native", "float32")
    assert found["sparse_calls"] == 3 == sum(found["backends"].values())
    assert set(found["steps"]) == {"dense", "search", "sparse", "refresh"}
    assert found["projected"]["counts"] == {"search": 1, "sparse": 4, "refresh": 1}
    assert "nothing about quality" in found["note"]
    assert found["peak_gib"] is None


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--transformer", "flux", *TINY]) == 0
    out = capsys.readouterr().out
    assert out.startswith("flux: 2 of 57 blocks, 0.00e9 random weights, float32\n")
    for words in (
        "of these blocks, not of the whole model",
        "it makes images: the 9 frames of --size were not used",
        "80 tokens (1 x 1 x 64 and 16 of text), 2 heads of 16",
        "dense attention by native",
        "6 calls ran sparse",
        "projected run of 6 steps",
        "peak memory not measured",
    ):
        assert words in out
    assert out.endswith("about speed and say nothing about quality.\n")
    rows = [line.split("  ") for line in out.splitlines() if line.startswith("  ")]
    assert [row[1].strip() for row in rows] == [
        "step",
        "dense",
        "dense with search",
        "sparse",
        "sparse with search",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--transformer", "wan"], "No architecture 'wan'"),
        (["--transformer", "flux", "--size", "128"], "size '128'"),
        (["--transformer", "flux", "--layers", "58"], "--layers 58: flux has 57"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize("slow", [1.0, 1.3])
def test_a_busy_machine_is_said(
    slow: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dense step whose other work took longer would make the sparse ones look quick."""
    measure = measurement.measure_transformer

    def times(seconds: float, attention: float) -> StepTimes:
        return StepTimes(rounds=(StepTime(seconds=seconds, attention=attention, calls=2),))

    def made_up(*args: Any) -> Any:
        found = measure(*args)
        sparse = {kind: times(2.5, 0.5) for kind in found.times}
        return dataclasses.replace(found, dense=times(2.0 * slow + 3.0, 3.0), times=sparse)

    monkeypatch.setattr(measurement, "measure_transformer", made_up)
    assert main(["bench", "--transformer", "flux", *TINY]) == 0
    out = capsys.readouterr().out
    assert ("NOT A QUIET MACHINE" in out) is (slow > 1.1)
    assert ("took up to 1.30 times as long" in out) is (slow > 1.1)
    assert "its attention 6.00x" in out
    assert f"{(2 * slow + 3) / 2.5:.2f}x as fast as a dense one" in out
    # One dense step with the search and five sparse ones, of which all take 2.5 s here.
    assert f"projected run of 6 steps: {6 * (2 * slow + 3):.1f} s dense, 15.0 s sparse" in out
