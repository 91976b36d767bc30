"""A plan as one JSON text: the same plan, as a file or as bytes, and refused as strictly."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from plan_files import with_heads
from untouched import states

from sparsediff.kernels.errors import PlanError, PlanMismatchError
from sparsediff.plans import PatternPlan
from sparsediff.search import PlannedHead
from sparsediff.search.patterns.pattern import Diagonal


def edited(plan: PatternPlan, **values: Any) -> bytes:
    return json.dumps(json.loads(plan.to_json()) | values).encode()


def test_the_same_plan_comes_back(plan: PatternPlan, tmp_path: Path) -> None:
    content = plan.to_json()
    assert json.loads(content)["tables"] == [[0, 2, 5], [1]]  # of stripes, each once
    assert PatternPlan.from_json(content) == plan
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    assert PatternPlan.from_pretrained(path) == plan
    assert PatternPlan.from_pretrained(str(path)) == plan
    (tmp_path / "plan.json").write_bytes(content)
    assert PatternPlan.from_pretrained(tmp_path) == plan  # alone in a folder


def test_without_stripes_it_is_the_file_that_a_folder_has(
    plan: PatternPlan, tmp_path: Path
) -> None:
    bare = dataclasses.replace(
        plan, table=with_heads(plan.table, lambda _: PlannedHead(pattern=Diagonal(half_width=0.1)))
    )
    bare.save_pretrained(tmp_path)
    assert bare.to_json() == (tmp_path / "plan.json").read_bytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 2, 6], [1]], r"tables\[0\]\[2\] = 6: needs a whole number from 0 to 5"),
        ([[0, 2, 2], [1]], r"tables\[0\]: Stripe.columns: needs ascending"),
        ([[0, True], [1]], r"tables\[0\]\[1\] = true: needs a whole number"),
        ([[0], []], r"tables\[1\] = a list of 0: needs a list of at least 1"),
        ([], "tables = a list of 0"),
        ([[0]], r"row = 1: needs a whole number from 0 to 0"),
        (["tables.safetensors"], r"tables\[0\] = 'tables.safetensors': needs a list"),
        ({"0": [1]}, "needs 'tables.safetensors'"),
        ("../tables.safetensors", "needs 'tables.safetensors'"),
    ],
)
def test_spoiled_stripes(plan: PatternPlan, rows: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PatternPlan.from_json(edited(plan, tables=rows))


def test_what_is_no_lone_plan(plan: PatternPlan, folder: Path, tmp_path: Path, pipe: Any) -> None:
    found = {
        "Give the folder that holds both": (folder / "plan.json").read_bytes(),
        "pickle and zip files are not read": pickle.dumps({"schema": "sparsediff.plan/1"}),
        "has 16777217 bytes; a plan's may have": b" " * (16 * 2**20 + 1),
        "line 1 column 1": b"",
        "is not a plan": b"{}",
    }
    before = states(pipe)
    for message, content in found.items():
        with pytest.raises(PlanError, match=f"The plan theirs cannot be used: .*{message}"):
            PatternPlan.from_json(content, label="theirs")
        path = tmp_path / "theirs.json"
        path.write_bytes(content)
        with pytest.raises(PlanError, match=message):
            pipe.enable_sparse_attention(str(path))
    assert states(pipe) == before


def test_a_fingerprint_stands_for_its_model(plan: PatternPlan) -> None:
    plan.check(plan.fingerprint)
    other = dataclasses.replace(
        plan.fingerprint,
        components=(dataclasses.replace(plan.fingerprint.components[0], model="Another"),),
    )
    with pytest.raises(PlanMismatchError, match="searched on another model"):
        plan.check(other)
