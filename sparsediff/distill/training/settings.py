"""DistillSettings: everything a distillation is asked for, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsediff.distill.training.setting_checks import (
    check_bool,
    check_choice,
    check_named,
    check_real,
    check_whole,
    settings_dict,
    settings_from,
    texts,
)
from sparsediff.kernels.errors import SparseError

_OBJECTIVES = ("tdm", "imitation", "mmd")
_SPARSE = ("both", "student", "none")
_SCHEDULES = ("constant", "constant_with_warmup", "cosine", "linear")
_PRECISIONS = ("no", "fp16", "bf16")
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings:
    """What to train and how; every field is a flag of `sparsediff distill`.

    ``steps`` of the student. ``guidance``: the teacher's guidance scale in diffusers' meaning,
    negative + guidance (positive - negative); ``student_guidance`` that the student is run with, 1
    for none, which it then has to learn. ``shift``: of the student's noise levels, None for the
    pipeline's. ``call``: arguments of the pipeline, which say the size. ``method``: sparse attention
    of student and fake as `Method.to_dict`, None for dense; ``sparse_in``: "both", "student" only,
    or "none".

    ``iterations`` updates of the student; a round of training takes ``batch`` prompts a process
    ``accumulation`` times, and of each roll-out ``segments`` of its steps; ``fake_updates`` for each
    update of the student. ``lora_rank`` 0 trains all weights. ``churn`` fresh noise in the student's
    training steps, ``separate`` segments, ``huber``, ``normalise``, ``nearness`` as in
    `TrajectoryMatching`. ``teacher_steps``: that the teacher takes for one of the student's, where it
    is imitated. ``average``: weight of the past in the averaged weights, which become the
    student; 0 for none. ``shard``: each process holds a part of every weight (FSDP2).

    Raises SparseError for a value out of range.
    """

    steps: int = 8
    guidance: float | None = None
    student_guidance: float = 1.0
    shift: float | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] | None = None
    sparse_in: str = "both"
    objective: str = "tdm"

    iterations: int = 300
    batch: int = 1
    accumulation: int = 1
    segments: int = 1
    fake_updates: int = 1
    learning_rate: float = 1e-4
    fake_learning_rate: float = 5e-4
    schedule: str = "constant_with_warmup"
    warmup_iterations: int = 5
    clip: float = 1.0
    average: float = 0.98
    churn: float = 0.0
    separate: bool = True
    huber: float = 1e-3
    normalise: bool = True
    nearness: float = 0.0
    teacher_steps: int = 1

    lora_rank: int = 64
    lora_alpha: float = 64.0
    lora_targets: tuple[str, ...] = _TARGETS
    precision: str = "no"
    gradient_checkpointing: bool = False
    shard: bool = False
    seed: int = 0

    checkpoint_every: int = 50
    keep_checkpoints: int = 2
    validate_every: int = 0
    validation_prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lora_targets", "validation_prompts"):  # JSON has no tuples
            object.__setattr__(self, name, texts(name, getattr(self, name)))
        for name in ("separate", "normalise", "gradient_checkpointing", "shard"):
            check_bool(name, getattr(self, name))
        check_named("call", self.call)
        if self.method is not None:
            check_named("method", self.method)
        for name, least in _COUNTS.items():
            check_whole(name, getattr(self, name), least=least)
        for name, (low, high) in _RANGES.items():
            optional = name in {"guidance", "shift"}
            check_real(name, getattr(self, name), low, high, optional=optional)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if self.segments > self.steps:
            raise SparseError(
                f"segments={self.segments}: a roll-out of {self.steps} steps has no more than that."
            )
        if self.teacher_steps != 1 and self.objective != "imitation":
            raise SparseError(
                f"teacher_steps={self.teacher_steps}: only objective='imitation' asks the teacher for "
                f"steps; {self.objective} does not. Leave it out."
            )
        if self.lora_rank and not self.lora_targets:
            raise SparseError("lora_targets is empty: needs names of modules, such as to_q.")
        if self.validate_every and not self.validation_prompts:
            raise SparseError("validate_every needs validation_prompts to generate from.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> DistillSettings:
        """Read what `to_dict` gave; `source` names it in errors."""
        return settings_from(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return settings_dict(self)


_COUNTS = {
    "steps": 1,
    "iterations": 1,
    "batch": 1,
    "accumulation": 1,
    "segments": 1,
    "teacher_steps": 1,
    "fake_updates": 1,
    "warmup_iterations": 0,
    "lora_rank": 0,
    "seed": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
    "validate_every": 0,
}
_RANGES: dict[str, tuple[float, float]] = {
    "guidance": (0.0, 100.0),
    "student_guidance": (1.0, 100.0),
    "shift": (0.01, 100.0),
    "learning_rate": (0.0, 1.0),
    "fake_learning_rate": (0.0, 1.0),
    "clip": (1e-8, 1e8),
    "average": (0.0, 0.99999),
    "churn": (0.0, 1.0),
    "huber": (0.0, 1e3),
    "nearness": (0.0, 1e3),
    "lora_alpha": (1e-6, 1e6),
}
_CHOICES = {
    "sparse_in": _SPARSE,
    "objective": _OBJECTIVES,
    "schedule": _SCHEDULES,
    "precision": _PRECISIONS,
}
