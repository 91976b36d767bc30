"""Masks: what fits a model, what a file holds, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.masks import SCHEMA, Masks
from sparsediff.prune.structures import Structure

HEADS = Structure(kind="heads", path="blocks.0.attn", units=4)
KEPT = torch.tensor([True, False, True, True])


def test_a_file_gives_back_what_was_saved(tmp_path):
    masks = Masks(kept={HEADS.key: KEPT, "ffn/blocks.0.ff": torch.zeros(8, dtype=torch.bool)})
    masks.save(tmp_path / "masks.safetensors")
    again = Masks.load(tmp_path / "masks.safetensors")
    assert again.kept.keys() == masks.kept.keys()
    assert all(torch.equal(again.kept[key], masks.kept[key]) for key in masks.kept)
    assert again.density == masks.density == 3 / 12


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "masks.safetensors"
    Masks(kept={HEADS.key: KEPT}).save(path)

    def half(tensors, file, **_):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("sparsediff.prune.masks.save_file", half)
    with pytest.raises(SparseError, match="No space left"):
        Masks(kept={HEADS.key: ~KEPT}).save(path)
    assert torch.equal(Masks.load(path).kept[HEADS.key], KEPT)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kept", [None, [KEPT]])
def test_masks_are_a_mapping(kept):
    with pytest.raises(SparseError, match="needs a mapping of keys to bool tensors"):
        Masks(kept=kept)


def test_a_path_may_be_a_text(tmp_path):
    Masks(kept={HEADS.key: KEPT}).save(str(tmp_path / "masks.safetensors"))
    found = Masks.load(str(tmp_path / "masks.safetensors"))
    assert torch.equal(found.kept[HEADS.key], KEPT)


def test_no_masks_keep_everything():
    assert Masks(kept={}).density == 1


@pytest.mark.parametrize("value", [KEPT.float(), KEPT[None], [True, False]])
def test_anything_but_a_row_of_bools_is_refused(value):
    with pytest.raises(SparseError, match=r"needs a bool tensor \[units\]"):
        Masks(kept={HEADS.key: value})


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            {"heads/blocks.7.attn": KEPT},
            "has no structure 'heads/blocks.7.attn'; it has heads/blocks.0",
        ),
        ({HEADS.key: KEPT[:3]}, "has 3 units, not 4"),
    ],
)
def test_masks_of_another_model_are_refused(kept, words):
    Masks(kept={HEADS.key: KEPT}).check([HEADS])
    with pytest.raises(SparseError, match=words):
        Masks(kept=kept).check([HEADS])


@pytest.mark.parametrize(
    ("tensor", "schema", "words"),
    [
        (KEPT.to(torch.uint8), "sparsediff.pruning-masks/9", "has the schema"),
        (KEPT.to(torch.uint8) * 2, SCHEMA, "other than 0 and 1"),
        (KEPT.float(), SCHEMA, "other than 0 and 1"),
        (KEPT.to(torch.uint8)[None], SCHEMA, "needs a bool tensor"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, tensor, schema, words):
    path = tmp_path / "masks.safetensors"
    save_file({HEADS.key: tensor}, path, metadata={"schema": schema})
    with pytest.raises(SparseError, match=words):
        Masks.load(path)


@pytest.mark.parametrize(
    "key",
    [
        *(
            "blocks/x",
            "blocks/blocks.²",
            "../../etc/passwd",
            "heads/",
            "norms/blocks.0",
            "heads/.a",
        ),
        *("heads//etc", f"blocks/blocks.{'9' * 5000}", "ffn/" + "a." * 50 + "b", "heads/a\n"),
    ],
)
def test_a_key_that_is_no_path_of_a_module_is_refused(tmp_path, key):
    path = tmp_path / "masks.safetensors"
    save_file({key: KEPT.to(torch.uint8)}, path, metadata={"schema": SCHEMA})
    with pytest.raises(SparseError, match=r"names no structure: needs heads/, ffn/ or blocks/"):
        Masks.load(path)


def test_a_broken_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "masks.safetensors"
    with pytest.raises(SparseError, match="cannot be read as masks"):
        Masks.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(SparseError, match="cannot be read as masks"):
        Masks.load(path)


def test_a_structure_of_no_units_is_read_and_does_not_fit(tmp_path):
    path = tmp_path / "masks.safetensors"
    Masks(kept={HEADS.key: KEPT[:0]}).save(path)
    with pytest.raises(SparseError, match="has 0 units, not 4"):
        Masks.load(path).check([HEADS])
