"""Rows of the distillation table run as they say, sparse or not, and are whole when interrupted."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distill_pipelines
import distill_rows
import distill_time
import pytest
import torch
from diffusers import WanPipeline
from distill_pipelines import ROWS, Row, Students, load, method_of, what_ran
from safetensors.torch import load_file
from tiny_student import STEPS, make_student

from sparsediff import BladeASA, RunReport

METHOD = BladeASA(density=0.5, energy=1.0)
SMALL = {"num_frames": 5, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Students:
    """Two students of the sample model, not trained, one of them sparse."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("dense", "sparse")}
    for kind, folder in folders.items():
        pipe = WanPipeline.from_pretrained(distill_pipelines.MODEL)
        make_student(pipe, folder, method=METHOD if kind == "sparse" else None)
    return folders


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of few steps of a small video, three of them."""
    teacher = Row(title="teacher", steps=1)
    own, borrowed = (
        Row(title="student", steps=STEPS, student=kind, attention=attention)
        for kind, attention in (("sparse", "own"), ("dense", "borrowed"))
    )
    for name in list(ROWS):
        monkeypatch.delitem(ROWS, name)
    for name, row in {"teacher-50": teacher, "own": own, "borrowed": borrowed}.items():
        monkeypatch.setitem(ROWS, name, row)
    monkeypatch.setattr(WanPipeline, "__call__", smaller(WanPipeline.__call__))
    requests = [("a red circle", 1), ("a blue square", 2), ("a red circle", 3)]
    monkeypatch.setattr(distill_rows, "requests_of", lambda diversity: requests)


def smaller(call: Any) -> Any:
    """A pipeline's call at a small size, whatever size is asked for."""

    def small(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(self, *args, **kwargs | SMALL)

    small.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    return small


def run(monkeypatch: pytest.MonkeyPatch, script: Any, students: Students, *words: str) -> None:
    folders = [word for kind, path in students.items() for word in (f"--{kind}-student", str(path))]
    monkeypatch.setattr(sys, "argv", [script.__file__, *words, *folders])
    script.main()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("row", ["teacher-50", "own", "borrowed"])
def test_a_row_goes_on_where_it_was(
    row: str, students: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (row, "--batch", "2", "--out", str(tmp_path))
    real, made = distill_rows.generate, []

    def killed(*given: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(real(*given))
        return made[0]

    monkeypatch.setattr(distill_rows, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, distill_rows, students, *words)
    videos = tmp_path / f"{row}.safetensors"
    assert torch.equal(load_file(videos)["videos"], made[0])
    monkeypatch.setattr(distill_rows, "generate", real)
    run(monkeypatch, distill_rows, students, *words)
    found = load_file(videos)["videos"]
    assert (found.shape, found.dtype) == ((3, 5, 3, 32, 32), torch.uint8)
    assert torch.equal(found[:2], made[0])
    assert not torch.equal(found[0], found[2]), "seeds differ"
    runs = json.loads((tmp_path / f"{row}.json").read_text())["runs"]
    assert {start: facts["videos"] for start, facts in runs.items()} == {"0": 2, "2": 1}
    for facts in runs.values():
        assert facts["calls_per_video"] == (2 if row == "teacher-50" else STEPS)
        assert (facts["density"] < 1) == (row != "teacher-50")
        assert facts["sparse_calls"] > 0 or row == "teacher-50"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{row}.json", f"{row}.safetensors"]


@pytest.mark.parametrize(
    "report",
    [RunReport(dense_calls=4), RunReport(sparse_calls=3, dense_calls=1, fallbacks={"x": 1})],
)
def test_a_sparse_row_that_ran_dense_is_refused(report: RunReport) -> None:
    row = Row(title="the student", steps=4, student="sparse", attention="own")
    pipe: Any = SimpleNamespace(sparse_attention_report=lambda: report)
    with pytest.raises(RuntimeError, match="'the student' was to run sparse"):
        what_ran(pipe, row)


def test_the_borrowed_method_is_the_sparse_students(students: Students) -> None:
    assert method_of(students["sparse"]) == METHOD
    with pytest.raises(ValueError, match="Found a dense student"):
        method_of(students["dense"])
    eight = Row(title="student", steps=8, student="dense")
    with pytest.raises(ValueError, match=f"student of {STEPS} steps"):
        load(eight, students)


@pytest.mark.usefixtures("short")
def test_times(students: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("teacher-50", "own", "--runs", "2", "--rows", str(tmp_path))
    run(monkeypatch, distill_time, students, *words)
    rows = json.loads((tmp_path / "times.json").read_text())["rows"]
    assert [(name, len(runs)) for name, runs in rows.items()] == [("teacher-50", 2), ("own", 2)]
    for runs, calls in ((rows["teacher-50"], 2), (rows["own"], STEPS)):
        assert all(0 < one["loop"] < one["whole"] for one in runs)
        assert {one["calls"] for one in runs} == {calls}
