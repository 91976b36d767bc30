"""Saving with provenance: what the folder holds, who reads it, and what a full disk leaves."""

import errno
import json
import os
import pathlib

import diffusers
import pytest
import torch
from pruned_models import case_of, random_masks
from tiny_pipelines import wan

import sparsediff
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.masks import Masks
from sparsediff.prune.original_paths import original_masks
from sparsediff.prune.removal import remove
from sparsediff.prune.saving import save_pruned
from sparsediff.prune.structures import KINDS, structures_of

WEIGHTS = "diffusion_pytorch_model.safetensors"


def _pipeline(experts=1):
    """A pipeline whose first transformer is pruned, and the masks."""
    pipe = wan(experts=experts)
    masks = random_masks(structures_of(pipe.transformer, KINDS), 0)
    pipe.transformer = remove(pipe.transformer, masks)
    return pipe, masks


def _contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_pipeline_comes_back(tmp_path):
    pipe, masks = _pipeline()
    pipe.transformer.register_to_config(_name_or_path=str(tmp_path))
    save_pruned(tmp_path / "out", pipe, masks, base="somebody/model")
    files = _contents(tmp_path / "out")
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".tmp"))]
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    index = json.loads(files["model_index.json"])
    assert index["transformer"] == ["sparsediff", "PrunedWanTransformer3DModel"]
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", transformer_2=None)
    assert type(loaded.transformer) is type(pipe.transformer)
    ours, theirs = pipe.transformer.state_dict(), loaded.transformer.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    found = Masks.load(tmp_path / "out" / "transformer" / "pruning_masks.safetensors")
    assert found.kept.keys() == masks.kept.keys()
    assert all(torch.equal(found.kept[key], masks.kept[key]) for key in masks.kept)
    readme = files["README.md"].decode()
    assert readme.startswith('---\nlibrary_name: diffusers\nbase_model: "somebody/model"\n')
    small, whole = (
        sum(p.numel() for p in m.parameters()) for m in (loaded.transformer, wan().transformer)
    )
    assert f"| transformer: parameters | {small:,} | {whole:,} |" in readme
    assert "| transformer: blocks that masks are for | 2 | 3 |" in readme
    assert "torch_dtype" not in readme


@pytest.mark.parametrize("alone", [False, True], ids=["pipeline", "model"])
def test_the_card_of_a_model_in_half_precision_loads_it_so(tmp_path, alone):
    pipe, masks = _pipeline()
    pipe.to(torch.bfloat16)
    save_pruned(tmp_path / "out", pipe.transformer if alone else pipe, masks)
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    told = {}
    exec(code.replace("this folder or its Hub id", str(tmp_path / "out")), told)
    parts = [told["model"]] if alone else [told["pipe"].transformer, told["pipe"].text_encoder]
    assert {part.dtype for part in parts} == {torch.bfloat16}


def test_a_model_replaces_the_one_that_was_there(tmp_path):
    case = case_of("wan")
    first = random_masks(case.structures, 0)
    once = remove(case.model, first)
    once.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "notes.txt").write_text("mine")
    second = random_masks(structures_of(once, KINDS), 1)
    twice = remove(once, second)
    save_pruned(tmp_path, twice, original_masks(first, second))
    assert set(_contents(tmp_path)) == {
        "config.json",
        WEIGHTS,
        "README.md",
        "pruning_masks.safetensors",
        "notes.txt",
    }
    assert "sparsediff.PrunedWanTransformer3DModel" in (tmp_path / "README.md").read_text()
    loaded = type(twice).from_pretrained(tmp_path)
    again = remove(case.model, Masks.load(tmp_path / "pruning_masks.safetensors"))
    assert loaded.config.pruning == again.config.pruning  # what is saved makes the same model


def test_a_pipeline_that_is_whole_is_not_replaced(tmp_path):
    wan(layers=1).save_pretrained(tmp_path)
    before = _contents(tmp_path)
    pipe, masks = _pipeline()
    with pytest.raises(SparseError, match="holds a pipeline that is not a pruned one"):
        save_pruned(tmp_path, pipe, masks)
    assert _contents(tmp_path) == before


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    pipe, masks = _pipeline()
    save_pruned(tmp_path / "out", pipe, masks)
    before = _contents(tmp_path / "out")
    write = pathlib.Path.write_text

    def full(path, *arguments, **named):
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *arguments, **named)

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(SparseError, match="No space left"):
        save_pruned(tmp_path / "out", pipe, masks)
    assert _contents(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_masks_of_something_else_are_refused(tmp_path):
    pipe, masks = _pipeline(experts=2)
    others = random_masks(structures_of(wan().transformer, KINDS), 1)
    with pytest.raises(SparseError, match="These masks did not make transformer: "):
        save_pruned(tmp_path / "out", pipe, others)
    fewer = Masks(kept={k: v for k, v in masks.kept.items() if not k.startswith("blocks/")})
    with pytest.raises(SparseError, match=r"blocks/blocks has \(1, 2\), by the masks \(0, 1\)"):
        save_pruned(tmp_path / "out", pipe, fewer)
    with pytest.raises(SparseError, match="given for transformer_2; transformer are pruned"):
        save_pruned(tmp_path / "out", pipe, {"transformer_2": masks})
    for wrong in (None, dict(masks.kept)):
        with pytest.raises(SparseError, match="needs Masks, or a mapping of components to Masks"):
            save_pruned(tmp_path / "out", pipe, wrong)
    with pytest.raises(SparseError, match="holds no pruned model"):
        save_pruned(tmp_path / "out", wan(), masks)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SparseError, match="holds a model"):
        save_pruned(tmp_path, pipe, masks)
    assert not (tmp_path / "out").exists()


def test_push_to_hub_uploads_what_loads(tmp_path, monkeypatch):
    from diffusers.utils import hub_utils

    pipe, _ = _pipeline()
    seen = {}

    def upload(*, repo_id, folder_path, **_):
        model = sparsediff.PrunedWanTransformer3DModel.from_pretrained(folder_path)
        seen[repo_id] = model.state_dict()
        seen["files"] = sorted(path.name for path in pathlib.Path(folder_path).iterdir())

    class _Repo:
        repo_id = "somebody/pruned"

    monkeypatch.setattr(hub_utils, "create_repo", lambda *_, **__: _Repo)
    monkeypatch.setattr(hub_utils, "upload_folder", upload)
    monkeypatch.setattr(
        hub_utils,
        "load_or_create_model_card",
        lambda *_, **__: diffusers.utils.hub_utils.ModelCard("# x"),
    )
    pipe.transformer.push_to_hub("somebody/pruned")
    ours = pipe.transformer.state_dict()
    assert seen["files"] == ["README.md", "config.json", WEIGHTS]
    assert all(torch.equal(ours[key], seen["somebody/pruned"][key]) for key in ours)
