"""The GPU table on a CPU: who competes, ratios, faults, the limit of time, and what is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediff.bench import gpu, gpu_document, hopper_switch, machine
from sparsediff.bench.gpu_row import GpuRow, GpuTable
from sparsediff.bench.plan import CASE_FLOP, TOKENS, Plan, Shape, default_shapes
from sparsediff.bench.targets import TARGETS
from sparsediff.kernels import BackendError, SparseError
from sparsediff.kernels.gather import GatherBackend

SHAPE = Shape(tokens=130, heads=2, dim=16)
PLAN = Plan(
    shapes=(SHAPE,),
    densities=(0.4, 1.0),
    dtype=torch.float32,
    block_size=(32, 32),
    backends=("gather",),
    device="cpu",
    repeat=4,
)


class Script:
    """A stopwatch and a clock: run x of a round takes x + 1 seconds, twice as much in odd rounds."""

    def __init__(self) -> None:
        self.time = 0.0
        self.calls = 0

    def seconds(self, runs: list[Any]) -> list[float]:
        for run in runs:
            run()
        self.calls += 1
        found = [(x + 1.0) * (1 + self.calls % 2) for x in range(len(runs))]
        self.time += sum(found)
        return found

    def now(self) -> float:
        return self.time


def table_of(plan: Plan, script: Script | None = None) -> GpuTable:
    script = script or Script()
    return gpu.measure_gpu(plan, stopwatch=script, now=script.now)


def test_default_shapes() -> None:
    found = default_shapes()
    assert {shape.tokens for shape in found} == set(TOKENS)
    assert {shape.dim for shape in found} == {64, 128}
    assert [shape.heads for shape in found[:3]] == [40, 20, 8]
    assert all(shape.flop <= CASE_FLOP for shape in found)
    assert [n for n in TOKENS if n % 64] == [75600, 119056]


def test_rows_and_ratios() -> None:
    lines: list[str] = []
    script = Script()
    table = gpu.measure_gpu(PLAN, stopwatch=script, now=script.now, tell=lines.append)
    names = [(row.of, row.kernel, round(row.density, 2)) for row in table.rows]
    assert names == [
        ("forward", "flash", 1.0),
        ("forward", "gather", 0.4),
        ("forward", "gather", 1.0),
        ("mass", "gather", 1.0),
        ("search", "gather", 0.2),
        ("backward", "flash", 1.0),
        ("backward", "gather", 0.4),
        ("backward", "gather", 1.0),
    ]
    assert table.right
    for row, place in zip(table.rows, [1, 2, 3, 4, 5, 1, 2, 3], strict=True):
        assert row.baseline == "flash"
        assert row.speedup == pytest.approx(1 / place)  # load doubles both of a round
        assert len(row.seconds) == 3  # 15 s a round against a limit of 10 s: the fewest
        assert row.tflops == pytest.approx(row.flop / row.median / 1e12)
    dense = 4 * 130**2 * 2 * 16
    flops = [row.flop / dense for row in table.rows]
    assert flops == pytest.approx([1, 0.4, 1, 0.5, 0.5, 2.5, 1, 2.5])
    assert table.rows[0].layout == "bshd"  # first of the two, so the faster by the script
    assert set(table.notes) == {"cudnn", "flex", "efficient", "xformers"}
    assert lines[0].startswith("forward, 130 tokens x 2 heads x 16: ")


def test_the_faster_layout_competes() -> None:
    class HeadsFirst(Script):
        def seconds(self, runs: list[Any]) -> list[float]:
            found = super().seconds(runs)
            return found[::-1] if len(runs) == 2 else found

    assert table_of(PLAN, HeadsFirst()).rows[0].layout == "bhsd"


def test_a_wrong_kernel_has_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GatherBackend.attention
    monkeypatch.setattr(
        GatherBackend, "attention", lambda self, i: (right(self, i)[0] * 1.01, None)
    )
    table = table_of(PLAN)
    assert not table.right
    wrong = [row for row in table.rows if not row.match]
    assert {(row.of, row.kernel) for row in wrong} == {
        ("forward", "gather"),
        ("backward", "gather"),
    }
    assert all(row.error > 1 and row.speedup is row.tflops is None for row in wrong)


def test_an_output_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GatherBackend.attention

    def partly(self: GatherBackend, inputs: Any) -> Any:
        out = torch.empty_like(inputs.q)
        out[:, :100] = right(self, inputs)[0][:, :100]
        return out, None

    monkeypatch.setattr(GatherBackend, "attention", partly)
    rows = [row for row in table_of(PLAN).rows if (row.of, row.kernel) == ("forward", "gather")]
    assert [row.match for row in rows] == [False, False]
    assert all(row.error == float("inf") for row in rows)


def test_a_kernel_that_fails_costs_its_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: GatherBackend, inputs: Any) -> Any:
        raise RuntimeError("no registers left")

    monkeypatch.setattr(GatherBackend, "attention", broken)
    table = table_of(PLAN)
    failed = [row for row in table.rows if row.failure]
    assert len(failed) == 4
    assert failed[0].failure == "RuntimeError: no registers left"
    assert not table.right
    assert "failed: RuntimeError" in gpu_document.cells(failed[0])[-1]
    assert [row.speedup for row in table.rows if row.of == "mass"] == [0.5]


def test_a_part_that_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*anything: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "search_contestants", lost)
    table = table_of(PLAN)
    assert table.failed == {"forward, 130 tokens x 2 heads x 16": "RuntimeError: out of memory"}
    assert not table.right
    assert {row.of for row in table.rows} == {"backward"}


def test_what_does_not_fit_into_the_time_is_named() -> None:
    script = Script()
    plan = dataclasses.replace(PLAN, shapes=(SHAPE, SHAPE), minutes=1.9, case_seconds=1.0)
    table = table_of(plan, script)
    assert [row.of for row in table.rows].count("mass") == 1
    assert len(table.left_out) == 3
    assert table.left_out[0] == "forward, 130 tokens x 2 heads x 16"
    assert script.time < 60 * plan.minutes


def test_bad_plans() -> None:
    for fault in ({"repeat": 0}, {"minutes": 0.0}, {"shapes": ()}, {"dtype": torch.float64}):
        with pytest.raises(SparseError):
            dataclasses.replace(PLAN, **fault)
    with pytest.raises(BackendError, match="triton"):
        table_of(dataclasses.replace(PLAN, backends=("triton",)))
    if not torch.cuda.is_available():
        with pytest.raises(SparseError, match="no CUDA device"):
            gpu.measure_gpu(dataclasses.replace(PLAN, device="cuda"))


def test_hopper_kernel_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PLAN, backends=("gather", hopper_switch.NAME), backward=False)
    table = table_of(plan)
    assert {row.kernel for row in table.rows} == {"flash", "gather"}
    assert table.notes["triton-hopper at 130 tokens"] == "it needs a CUDA device"
    monkeypatch.setenv(hopper_switch.SWITCH, "0")
    with hopper_switch.switched_on():
        assert hopper_switch.os.environ[hopper_switch.SWITCH] == "1"
    assert hopper_switch.os.environ[hopper_switch.SWITCH] == "0"


def row(**values: Any) -> GpuRow:
    known = {"kernel": "triton", "of": "forward", "tokens": 75600, "heads": 20, "dim": 128}
    given = {"density": 0.2, "flop": 1e12, "layout": "bshd", "error": 0.1, "seconds": (0.1,)}
    return GpuRow(**{**known, **given, **values})


def test_targets() -> None:
    sparse, _, dense, mass, _ = TARGETS
    rows = [row(speedups=(4.0,)), row(speedups=(3.9,), tokens=33280), row(speedups=(1.0,), dim=64)]
    rows += [row(speedups=(1.0,), tokens=4096), row(speedups=(2.0,), of="mass", density=1.0)]
    assert sparse.verdict(rows) == (3.9, True)
    assert sparse.verdict([*rows, row(speedups=(9.0,), error=2.0)]) == (0.0, False)
    assert dense.verdict(rows) == (None, None)
    assert mass.verdict(rows) == (2.0, True)


def test_documents(tmp_path: Path) -> None:
    table = table_of(PLAN)
    about = machine.machine("cpu")
    assert set(about) >= {"device", "driver", "torch", "triton", "date"}
    paths = gpu_document.write_documents(tmp_path / "new", table, PLAN, about, "the command")
    assert [path.name for path in paths] == ["kernels-gpu.md", "kernels-gpu.json"]
    text = paths[0].read_text()
    assert f"torch {torch.__version__}" in text
    assert "$ the command" in text
    line = next(line for line in text.splitlines() if line.startswith("| forward, gather | 0.400"))
    assert [cell.strip() for cell in line.split("|")[5:8]] == ["3", "0", "0.50"]
    assert line.endswith("| yes |")
    assert "| density 0.2: at least 3.8 x | not measured | - |" in text
    assert "Did not compete: cudnn (torch has no cudnn attention on CPU)." in text
    found = json.loads(paths[1].read_text())
    assert found["schema"] == "sparsediff.bench-gpu/1"
    assert found["machine"] == about
    assert len(found["rows"]) == len(table.rows)
    assert found["rows"][1]["speedup"] == 0.5
    infinite = dataclasses.replace(table, rows=(row(error=float("inf")),))
    assert json.loads(gpu_document.to_json(infinite, PLAN, about))["rows"][0]["error"] is None


def test_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.driver() == "unknown"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.1\n")
    program.chmod(0o755)
    assert machine.driver() == "580.1"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine.driver() == "unknown"
