"""The settings of learning masks: every field is checked, and JSON brings them back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.learning.settings import FREE, LearnSettings

WHOLE = {
    "steps": 1,
    "iterations": 1,
    "batch": 1,
    "accumulation": 1,
    "warmup_iterations": 0,
    "latents_every": 1,
    "fisher_draws": 1,
    "seed": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
}
RATES = ("heads_learning_rate", "ffn_learning_rate", "blocks_learning_rate")
REAL = ("guidance", *RATES, "clip", "beta", "initial_logit", "damping", "start_spread")
CHOICES = ("schedule", "distance", "regulariser", "precision", "start", "fisher_along")

WRONG = [
    *[(name, value) for name, least in WHOLE.items() for value in (least - 1, 1.5, True, "4")],
    *[(name, value) for name in REAL for value in (-21.0, float("nan"), "1", True)],
    *[(name, value) for name in CHOICES for value in ("other", None, [], 1)],
    *[("target", value) for value in ("heads", [], ["channels"], ["ffn", "ffn"], None)],
    *[("call", value) for value in ("height", [1], None)],
    ("gradient_checkpointing", 1),
]


def test_every_field_is_in_the_table() -> None:
    known = {*WHOLE, *REAL, *CHOICES, "target", "call", "gradient_checkpointing"}
    assert known == {field.name for field in fields(LearnSettings)}
    assert {*FREE} < known


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values(name: str, value: Any) -> None:
    with pytest.raises(SparseError, match=name):
        LearnSettings(**{name: value})


def test_unknown_keys() -> None:
    with pytest.raises(SparseError, match=r"here has an unknown setting 'step'.*'steps'"):
        LearnSettings.from_dict({"step": 4}, source="here")


def test_json_brings_them_back() -> None:
    made = LearnSettings(target=["blocks"], call={"height": 64}, guidance=3)  # type: ignore[arg-type]
    assert made.target == ("blocks",)
    text = json.dumps(made.to_dict())
    assert LearnSettings.from_dict(json.loads(text), source="here") == made
    assert made.rates == {"blocks/": 0.1}
