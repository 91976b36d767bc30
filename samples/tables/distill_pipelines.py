"""The rows of the distillation table: for each the pipeline that generates it, and what it ran."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import WanPipeline

import sparsediff
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.search import Method

MODEL = Path(__file__).parent.parent / "models" / "shapes-wan"
STUDENT_STEPS = 10
Students = dict[
    str, Path
]  # the folders of "dense" and "sparse", as `sparsediff distill` wrote them


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One way to generate: ``student`` names a folder of Students, None means the teacher.

    ``attention``: "dense"; "own", the sparse method that the student was trained with; or
    "borrowed", the sparse student's method on a student that was trained dense.
    """

    title: str
    steps: int
    student: Literal["dense", "sparse"] | None = None
    attention: Literal["dense", "own", "borrowed"] = "dense"


ROWS = {
    "teacher-50": Row(title="teacher, 50 steps", steps=50),
    "teacher-25": Row(title="teacher, 25 steps", steps=25),
    "teacher-10": Row(title="teacher, 10 steps", steps=10),
    "teacher-8": Row(title="teacher, 8 steps", steps=8),
    "teacher-4": Row(title="teacher, 4 steps", steps=4),
    "dense-student": Row(title="dense student", steps=STUDENT_STEPS, student="dense"),
    "sparse-student": Row(
        title="sparse student (BLADE)", steps=STUDENT_STEPS, student="sparse", attention="own"
    ),
    "dense-student-sparse": Row(
        title="dense student, sparse untrained",
        steps=STUDENT_STEPS,
        student="dense",
        attention="borrowed",
    ),
}


def load(row: Row, students: Students) -> tuple[WanPipeline, dict[str, Any]]:
    """The pipeline of a row in float32 and the arguments of its call.

    Raises ValueError for a student of another number of steps than the row's.
    """
    call = json.loads((MODEL / "generation.json").read_text())["call"]
    call["num_inference_steps"] = row.steps
    pipe = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if row.student is not None:
        folder = students[row.student]
        card = StudentSource.of(folder).card()
        if card.steps != row.steps:
            raise ValueError(
                f"Found a student of {card.steps} steps in {folder}; needed {row.steps}. Give another "
                f"folder, or change STUDENT_STEPS in samples/tables/distill_pipelines.py."
            )
        own = row.attention == "own"
        sparsediff.load_student(pipe, folder, sparse=own, fuse=True, gate=False)
        call["guidance_scale"] = card.guidance
    if row.attention == "borrowed":
        sparsediff.enable_sparse_attention(pipe, method_of(students["sparse"]), gate=False)
    return pipe, call


def method_of(folder: Path) -> Method:
    """The sparse attention that a student was trained with; raises ValueError for a dense one."""
    source = StudentSource.of(folder)
    method = source.method(source.card())
    if method is None:
        raise ValueError(f"Found a dense student in {folder}; needed one that was trained sparse.")
    return method


def what_ran(pipe: WanPipeline, row: Row) -> dict[str, Any]:
    """Densities and calls of the last run; raises RuntimeError unless it ran as the row says."""
    if row.attention == "dense":
        return {"density": 1.0, "sparse_density": 1.0, "sparse_calls": 0}
    report = pipe.sparse_attention_report()
    if not report.sparse_calls or report.fallbacks:
        raise RuntimeError(f"The row {row.title!r} was to run sparse; its report says:\n{report}")
    names = ("density", "sparse_density", "sparse_calls", "dense_calls", "method")
    return {name: getattr(report, name) for name in names}


class CallCounter:
    """Videos that a model's calls were for: a call of two videos, or of one with guidance, is two."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.videos = 0
        self.hook = model.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, _args: Any, given: dict[str, Any], _output: Any) -> None:
        self.videos += len(given["hidden_states"])
