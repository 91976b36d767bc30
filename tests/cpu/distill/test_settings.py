"""The settings of a distillation: every field is checked, and JSON brings them back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from sparsediff.distill.training.settings import DistillSettings
from sparsediff.kernels.errors import SparseError

NAN, INFINITE = float("nan"), float("inf")
WHOLE = {
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
REAL = (
    "guidance",
    "student_guidance",
    "shift",
    "learning_rate",
    "fake_learning_rate",
    "clip",
    "average",
    "churn",
    "huber",
    "nearness",
    "lora_alpha",
)
BOOLS = ("separate", "normalise", "gradient_checkpointing", "shard")
CHOICES = ("sparse_in", "objective", "schedule", "precision")
TEXTS = ("lora_targets", "validation_prompts")
NAMED = ("call", "method")

WRONG = [
    *[
        (name, value)
        for name, least in WHOLE.items()
        for value in (least - 1, 1.5, True, "4", None)
    ],
    *[(name, value) for name in REAL for value in (-1.0, NAN, INFINITE, "1", True, [1.0])],
    *[(name, value) for name in BOOLS for value in (1, 0, "yes", None)],
    *[(name, value) for name in CHOICES for value in ("other", None, [], 1)],
    *[(name, value) for name in TEXTS for value in ("to_q", None, [1], [""], {"a": 1}, 3)],
    *[(name, value) for name in NAMED for value in ("blade-asa", [1], {1: 2}, 3)],
    ("call", None),
    ("average", 1.0),
    ("churn", 1.1),
    ("shift", 0.0),
    ("lora_targets", []),
]


def test_every_field_is_in_the_table() -> None:
    known = {*WHOLE, *REAL, *BOOLS, *CHOICES, *TEXTS, *NAMED}
    assert known == {field.name for field in fields(DistillSettings)}


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values(name: str, value: Any) -> None:
    with pytest.raises(SparseError, match=name):
        DistillSettings(**{name: value})
    with pytest.raises(SparseError, match=f"^here: .*{name}"):
        DistillSettings.from_dict({name: value}, source="here")


def test_edges_that_are_right() -> None:
    made = DistillSettings(
        **WHOLE, average=0.0, huber=0, guidance=None, shift=None, churn=1, lora_targets=[]
    )
    assert made.lora_targets == ()  # no adapters: all weights are trained
    assert made.steps == made.segments == 1


def test_unknown_keys() -> None:
    with pytest.raises(
        SparseError, match=r"here has an unknown setting 'step'\. Did you mean 'steps'"
    ):
        DistillSettings.from_dict({"step": 4}, source="here")


def test_fields_that_do_not_go_together() -> None:
    with pytest.raises(SparseError, match="segments=3"):
        DistillSettings(steps=2, segments=3)
    with pytest.raises(SparseError, match="validation_prompts"):
        DistillSettings(validate_every=5)
    with pytest.raises(SparseError, match=r"teacher_steps=2.*tdm does not"):
        DistillSettings(teacher_steps=2)


def test_json_brings_them_back() -> None:
    made = DistillSettings(
        steps=4,
        call={"height": 480},
        method={"name": "blade-asa"},
        validation_prompts=("a cat",),
        validate_every=3,
    )
    text = json.dumps(made.to_dict())
    assert DistillSettings.from_dict(json.loads(text), source="here") == made
    assert json.loads(text)["lora_targets"] == list(made.lora_targets)
