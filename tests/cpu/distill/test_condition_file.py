"""Prompt embeddings in a file: what comes back, what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsediff.distill.recording.condition_file import load_conditions, save_conditions
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.tree import leaves
from sparsediff.kernels.errors import SparseError

KEY = "sparsediff_conditions"


def conditions_of(seed: float, *, guided: bool = True) -> Conditions:
    table = torch.arange(6, dtype=torch.bfloat16).view(2, 3)
    negative = {
        "words": torch.zeros(1, 4),
        "extra": {"ids": (table, table), "on": True},
        "mask": None,
    }
    positive = {
        "words": torch.full((1, 4), seed),
        "extra": {"ids": (table, table), "on": True},
        "mask": None,
        "names": ["a", 2, 0.5],
        "scalar": torch.tensor(3),
    }
    return Conditions(
        positive=positive, negative=negative if guided else None, batched=frozenset({"/words"})
    )


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("guided", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, guided: bool) -> None:
    path = tmp_path / "prompts.safetensors"
    saved = [conditions_of(seed, guided=guided) for seed in (1.0, 2.0)]
    save_conditions(path, saved)
    loaded = load_conditions(path)
    assert [one.batched for one in loaded] == [frozenset({"/words"})] * 2
    for one, other in zip(saved, loaded, strict=True):
        assert same(one.positive, other.positive)
        assert same(one.negative, other.negative)
    assert [each.name for each in tmp_path.iterdir()] == ["prompts.safetensors"]


def test_equal_tensors_are_stored_once_and_loaded_apart(tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    save_conditions(path, [conditions_of(seed) for seed in (1.0, 2.0)])
    with safe_open(path, framework="pt") as file:
        assert len(list(file.keys())) == 5  # two prompts, one negative, the table, the scalar
    one, other = load_conditions(path)
    assert one.negative is not None
    leaves(one.negative)["/words"].add_(1)
    assert other.negative is not None
    assert not leaves(other.negative)["/words"].any()
    assert not torch.equal(leaves(one.positive)["/words"], leaves(other.positive)["/words"])


def test_prompts_of_a_file_make_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    save_conditions(path, [conditions_of(seed) for seed in (1.0, 2.0)])
    batch = Conditions.stack(load_conditions(path)).select(torch.tensor([1, 1, 0]))
    assert leaves(batch.positive)["/words"][:, 0].tolist() == [2, 2, 1]
    assert list(leaves(batch.positive)["/extra/ids/0"].shape) == [2, 3]


def test_what_a_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    odd = Conditions(positive={"words": object()}, negative=None, batched=frozenset())
    with pytest.raises(SparseError, match="is a object"):
        save_conditions(path, [odd])
    with pytest.raises(SparseError, match="no conditions"):
        save_conditions(path, [])
    assert not list(tmp_path.iterdir())


TENSOR = {"dict": {"words": {"tensor": "x"}}}
UNKNOWN = {"dict": {"words": {"tensor": "y"}}}
UNNAMED = {"dict": {"words": {"tensor": []}}}
PROMPT = {"positive": TENSOR, "negative": None, "batched": ["/words"]}


@pytest.mark.parametrize(
    ("about", "match"),
    [
        (None, "has no"),
        ([], "this version"),
        ({"format": 2, "prompts": [PROMPT]}, "format=2"),
        ({"format": 1, "prompts": []}, "something in it"),
        ({"format": 1, "prompts": [PROMPT], "more": 1}, "something in it"),
        ({"format": 1, "prompts": [PROMPT | {"more": 1}]}, "needs positive"),
        ({"format": 1, "prompts": [PROMPT | {"batched": ["/other"]}]}, "batched="),
        ({"format": 1, "prompts": [PROMPT | {"batched": "/words"}]}, "batched="),
        ({"format": 1, "prompts": [PROMPT | {"batched": [["/words"]]}]}, "batched="),
        ({"format": 1, "prompts": [PROMPT | {"negative": {"dict": {}}}]}, "batched="),
        ({"format": 1, "prompts": [PROMPT | {"positive": {"value": 1}}]}, "batched="),
        (
            {"format": 1, "prompts": [PROMPT | {"positive": UNKNOWN}]},
            "y",
        ),
        (
            {"format": 1, "prompts": [PROMPT | {"positive": UNNAMED}]},
            "needs",
        ),
        ({"format": 1, "prompts": [PROMPT | {"positive": {"pickle": "x"}}]}, "pickle"),
    ],
)
def test_files_of_another_form(tmp_path: Path, about: Any, match: str) -> None:
    path = tmp_path / "prompts.safetensors"
    metadata = None if about is None else {KEY: json.dumps(about)}
    save_file({"x": torch.zeros(1, 2)}, path, metadata=metadata)
    with pytest.raises(SparseError, match=match) as caught:
        load_conditions(path)
    assert str(path) in str(caught.value)


def test_the_form_above_is_one_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    about = json.dumps({"format": 1, "prompts": [PROMPT]})
    save_file({"x": torch.zeros(1, 2)}, path, metadata={KEY: about})
    assert len(load_conditions(path)) == 1


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    with pytest.raises(SparseError, match="not a file of conditions"):
        load_conditions(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(SparseError, match="not a file of conditions"):
        load_conditions(path)
    save_conditions(path, [conditions_of(1.0)])
    save_file(load_file(path), path, metadata={KEY: "{"})
    with pytest.raises(SparseError, match="not a file of conditions"):
        load_conditions(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SparseError, match="not a file of conditions"):
        load_conditions(path)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "conditions.safetensors"
    save_conditions(path, [conditions_of(1.0)])
    before = path.read_bytes()

    def full(tensors: Any, target: Path, **_: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(SparseError, match="No space left"):
        save_conditions(path, [conditions_of(2.0)])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
