"""Files of 2:4 masks: small, whole, and read strictly."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.mask_file import SCHEMA, load_masks, save_masks
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks

SHAPES = {"blocks.0.ffn.net.2": (5, 28), "proj": (1, 4), "even": (6, 12)}


def some_masks() -> SemiStructuredMasks:
    random = torch.Generator().manual_seed(0)
    return SemiStructuredMasks(
        choices={
            path: torch.randint(6, (rows, columns // 4), generator=random).to(torch.uint8)
            for path, (rows, columns) in SHAPES.items()
        }
    )


def written(path: Path, tensors: dict[str, Tensor], shapes: Any, schema: str = SCHEMA) -> Path:
    save_file(tensors, path, metadata={"schema": schema, "shapes": json.dumps(shapes)})
    return path


def test_round_trip(tmp_path: Path) -> None:
    masks, path = some_masks(), tmp_path / "masks.safetensors"
    save_masks(masks, path)
    found = load_masks(path)
    assert found.choices.keys() == masks.choices.keys()
    assert all(torch.equal(found.choices[k], masks.choices[k]) for k in masks.choices)
    assert [p.name for p in tmp_path.iterdir()] == ["masks.safetensors"]


def test_three_groups_take_a_byte(tmp_path: Path) -> None:
    save_masks(some_masks(), tmp_path / "masks.safetensors")
    sizes = {
        name: value.nbytes for name, value in load_file(tmp_path / "masks.safetensors").items()
    }
    assert sizes == {name: -(-rows * columns // 12) for name, (rows, columns) in SHAPES.items()}


@pytest.mark.parametrize(
    ("tensors", "shapes", "message"),
    [
        ({"a": torch.tensor([216]).byte()}, {"a": [1, 12]}, "at most 215"),
        ({"a": torch.tensor([36]).byte()}, {"a": [1, 8]}, "after its last group"),
        ({"a": torch.zeros(2).byte()}, {"a": [1, 12]}, r"needs uint8 \[1\]"),
        ({"a": torch.zeros(1)}, {"a": [1, 12]}, r"needs uint8 \[1\]"),
        ({"a": torch.zeros(1, 1).byte()}, {"a": [1, 12]}, r"needs uint8 \[1\]"),
        ({"a": torch.zeros(1).byte()}, {"a": [2**40, 2**40]}, "needs uint8"),
        ({"a": torch.zeros(1).byte()}, {"a": [1, 6]}, "4 dividing in"),
        ({"a": torch.zeros(1).byte()}, {"a": [0, 4]}, "4 dividing in"),
        ({"a": torch.zeros(1).byte()}, {"a": [True, 4]}, "4 dividing in"),
        ({"a": torch.zeros(1).byte()}, {"a": "4"}, "4 dividing in"),
        ({"a": torch.zeros(1).byte()}, {"b": [1, 4]}, "different layers"),
        ({"a": torch.zeros(1).byte()}, ["a"], "different layers"),
    ],
)
def test_wrong_contents_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], shapes: Any, message: str
) -> None:
    path = written(tmp_path / "masks.safetensors", tensors, shapes)
    with pytest.raises(SparseError, match=message) as raised:
        load_masks(path)
    assert str(path) in str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "other", {"a": torch.zeros(1).byte()}, {"a": [1, 4]}, "else/1")
    with pytest.raises(SparseError, match="schema 'else/1'"):
        load_masks(path)
    plain = tmp_path / "plain"
    save_file({"a": torch.zeros(1)}, plain)
    with pytest.raises(SparseError, match="schema None"):
        load_masks(plain)
    deep = tmp_path / "deep"
    about = {"schema": SCHEMA, "shapes": "[" * 100_000}
    save_file({"a": torch.zeros(1)}, deep, metadata=about)
    with pytest.raises(SparseError, match="cannot be read"):
        load_masks(deep)
    with pytest.raises(SparseError, match="cannot be read"):
        load_masks(tmp_path / "missing")


def test_pickles_and_torn_files_are_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    whole = tmp_path / "whole"
    save_masks(some_masks(), whole)
    torn = tmp_path / "torn"
    torn.write_bytes(whole.read_bytes()[:-3])
    for path in (pickled, torn):
        with pytest.raises(SparseError, match="cannot be read"):
            load_masks(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SparseError, match="could not be written"):
        save_masks(some_masks(), tmp_path / "file" / "masks.safetensors")
