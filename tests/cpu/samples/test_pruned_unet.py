"""The embedded UNet's pruned child: the parent's own weights, cut, and used like any other model."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import structures_of
from sparsediff.search import RandomBlocks

MODELS = Path(__file__).resolve().parents[3] / "samples/models"
PARENT, CHILD = MODELS / "shapes-unet", MODELS / "shapes-unet-pruned"
MASKS = CHILD / "unet" / "pruning_masks.safetensors"


@pytest.fixture(scope="module")
def parent():
    return diffusers.UNet2DConditionModel.from_pretrained(PARENT / "unet")


@pytest.fixture
def pipe():
    pipe = diffusers.DiffusionPipeline.from_pretrained(CHILD)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, **changes):
    call = json.loads((CHILD / "generation.json").read_text())["call"]
    generator = torch.Generator().manual_seed(0)
    call |= {"num_inference_steps": 2, "output_type": "pt", **changes}
    return pipe("a red circle on a dark background", generator=generator, **call).images


def test_the_folder_is_small_and_holds_no_pickle():
    files = [file for file in CHILD.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 6e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".png"}


def test_it_is_the_parent_without_the_units_of_its_masks(parent, pipe):
    masks = Masks.load(MASKS)
    assert masks.kept.keys() == {one.key for one in structures_of(parent, ("heads", "ffn"))}
    for kind in ("heads", "ffn"):
        kept = torch.cat([kept for key, kept in masks.kept.items() if key.startswith(kind)])
        assert 0.59 < kept.float().mean() < 0.61  # a ratio of 0.4
    cut = remove(parent, masks)
    assert type(pipe.unet) is type(cut)
    assert type(pipe.unet).__name__ == "PrunedUNet2DConditionModel"
    ours, theirs = cut.state_dict(), pipe.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    share = pipe.unet.num_parameters() / parent.num_parameters()
    assert 0.8 < share < 0.85


def test_sparse_attention_on_the_pruned_unet(pipe):
    dense = picture(pipe)
    pipe.enable_sparse_attention(RandomBlocks(density=0.5, warmup=0.0), gate=False)
    sparse = picture(pipe)
    report = pipe.sparse_attention_report()
    pipe.disable_sparse_attention()
    assert report.sparse_calls > 0
    assert report.fallbacks == {}
    assert report.sparse_density == 0.5
    assert float((sparse - dense).abs().max()) > 1e-3
    assert torch.equal(picture(pipe), dense)


def test_without_sparsediff_the_stock_class_refuses_it():
    with pytest.raises(ValueError, match="shape"):
        diffusers.UNet2DConditionModel.from_pretrained(CHILD / "unet")
