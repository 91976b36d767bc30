"""The gate in real pipelines: below break-even dense and said once, above it sparse, decided once."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch
from fake_machine import Machine
from tiny_pipelines import FAMILIES, wan

from sparsediff.gain.times import FILE
from sparsediff.search import AdaSpa

WAN = FAMILIES["wan"]
OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25}
CALLS = 3 * 2 * 4  # layers, guidance branches, steps
SLOW = 2.0  # a sparse call takes two dense calls more


@pytest.fixture(scope="module")
def dense() -> torch.Tensor:
    return WAN.run(wan())


@pytest.fixture(scope="module")
def sparse() -> torch.Tensor:
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS, gate=False)
    out = WAN.run(pipe)
    assert (session.report().sparse_calls, session.report().predictions) == (CALLS * 3 // 4, [])
    return out


def test_below_break_even_all_is_dense_and_said_once(
    machine: Machine, dense: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    machine.setup = SLOW
    pipe = wan()
    with caplog.at_level(logging.WARNING, logger="sparsediff"):
        session = pipe.enable_sparse_attention(**OPTIONS)
        assert torch.equal(WAN.run(pipe), dense)
        assert torch.equal(WAN.run(pipe), dense)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, CALLS)
    assert report.gated
    [(reason, count)] = report.fallbacks.items()
    assert count == CALLS
    [found] = report.predictions
    assert found["pays"] is False
    for figure in (f"{found['tokens']} tokens", f"{found['density']:.2f}", f"{found['ratio']:.2f}"):
        assert figure in reason
    assert "gate=False" in reason
    assert "larger size" in reason
    assert [record.getMessage().count(reason) for record in caplog.records] == [1]
    assert f"{found['tokens']} tokens: attention predicted to take {found['ratio']:.2f}" in str(
        report
    )


def test_a_run_that_warmup_keeps_dense_is_not_judged(machine: Machine, dense: torch.Tensor) -> None:
    machine.setup = SLOW
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS | {"warmup": 0.9})
    assert torch.equal(WAN.run(pipe), dense)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, CALLS)
    assert report.predictions == []
    [reason] = report.fallbacks
    assert reason.startswith("warmup keeps all steps dense")
    assert f"  fallbacks\n    1 x {reason}" in str(report)


def test_above_break_even_the_run_is_the_one_without_a_gate(
    machine: Machine, sparse: torch.Tensor
) -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(pipe), sparse)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (CALLS * 3 // 4, CALLS // 4)
    assert report.fallbacks == {}
    assert [found["pays"] for found in report.predictions] == [True]
    assert not report.gated


def test_an_open_gate_times_nothing(machine: Machine, sparse: torch.Tensor) -> None:
    machine.error = AssertionError("timed")
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS, gate=False)
    assert torch.equal(WAN.run(pipe), sparse)
    assert session.report().fallbacks == {}


def test_decided_once_a_run_and_measured_once_a_machine(machine: Machine) -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    first = session.report().predictions
    WAN.run(pipe)
    assert session.report().predictions == first
    pipe.disable_sparse_attention()
    session = pipe.enable_sparse_attention(**OPTIONS)  # another process would read the same file
    WAN.run(pipe)
    assert session.report().predictions == first
    assert len(machine.trials) == 1
    assert machine.trials[0].tokens == first[0]["tokens"]
    assert machine.trials[0].dense == "native"


def test_a_run_of_other_length_is_decided_anew(machine: Machine) -> None:
    """Two searches are dear in four steps and cheap in forty."""
    machine.setup = 0.4
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe, steps=4)
    short = session.report()
    WAN.run(pipe, steps=40)
    long = session.report()
    assert (short.gated, long.gated) == (True, False)
    assert short.sparse_calls == 0
    assert long.sparse_calls == 30 * 6
    assert len(machine.trials) == 1


BROKEN = [
    "",
    "[]",
    '{"schema": "sparsediff.gain/2"}',
    '{"schema": "sparsediff.gain/2", "entries": {"x": 1}}',
    '{"schema": "sparsediff.gain/2", "entries": {"x": {"dense_seconds": -1, "sparse": [[0.5, 1]], '
    '"dense_with_lse": 1, "mass": 1, "choice": 1, "probe": 1, "joined": 1}}}',
    '{"schema": "sparsediff.gain/2", "entries": {"x": {"dense_seconds": 1, "sparse": [], '
    '"dense_with_lse": 1, "mass": 1, "choice": 1, "probe": 1, "joined": 1}}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_measured_anew(
    machine: Machine, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    FILE.path.parent.mkdir(parents=True)
    FILE.path.write_text(text)
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    with caplog.at_level(logging.WARNING):
        WAN.run(pipe)
    assert session.report().sparse_calls > 0
    assert len(machine.trials) == 1
    assert caplog.text.count("times of dense and sparse attention are measured again") == 1
    assert len(json.loads(FILE.path.read_text())["entries"]) == 1


def test_where_nothing_is_timed_the_gate_is_open(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsediff.gain.case.enabled", lambda: False)
    machine.setup = SLOW
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    assert session.report().sparse_calls > 0
    assert (session.report().predictions, machine.trials) == ([], [])


def test_a_trial_that_fails_does_not_stop_the_run(
    machine: Machine, sparse: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    machine.error = RuntimeError("no kernel image\nmore")
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    with caplog.at_level(logging.WARNING, logger="sparsediff"):
        assert torch.equal(WAN.run(pipe), sparse)
    assert session.report().sparse_calls > 0
    assert caplog.text.count("no kernel image (RuntimeError)") == 1


def test_inside_a_compiled_model(machine: Machine, dense: torch.Tensor) -> None:
    machine.setup = SLOW
    torch._dynamo.reset()
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    out = WAN.run(pipe)
    torch._dynamo.reset()
    report = session.report()
    assert (report.sparse_calls, list(report.fallbacks.values())) == (0, [CALLS])
    assert len(machine.trials) == 1
    torch.testing.assert_close(out, dense, atol=1e-4, rtol=1e-4)  # as in test_compile.py


def test_a_configuration_takes_the_gate_too(machine: Machine) -> None:
    machine.setup = SLOW
    pipe = wan()
    session = pipe.enable_sparse_attention(AdaSpa(**OPTIONS))
    WAN.run(pipe)
    assert session.report().gated
