"""Every family: the model without its masked units computes what the masked model computed."""

import pytest
import torch
from pruned_models import PIPELINES, case_of, random_masks

from sparsediff.prune.gates import gated
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import FAMILIES

# Of the largest output, in float32: sums of tens of places in another order, over a few blocks.
TOLERANCE = 1e-5
SEEDS = 4  # every structure loses all, all but one, about half and nothing once

# Attention and feed-forwards that stay whole, by parts of their paths.
WHOLE = ("token_refiner", "face_adapter", "image_embedder", "text_embedder")


def _size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def _hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def _difference(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", PIPELINES)
def test_the_cut_model_is_the_masked_model(name):
    case = case_of(name)
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    dense = case.output(case.model)
    for seed in range(SEEDS):
        masks = random_masks(case.structures, seed)
        smaller = remove(case.model, masks)
        with gated(case.model, case.structures, {k: v.float() for k, v in masks.kept.items()}):
            masked = case.output(case.model)
        cut = case.output(smaller)
        assert _difference(cut, masked) <= TOLERANCE, seed
        assert _difference(cut, dense) > 100 * TOLERANCE  # the masks took something that counts
        assert _size(smaller) < _size(case.model)
    assert _hooks(case.model) == 0
    assert torch.equal(case.output(case.model), dense)
    after = case.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_mask_that_keeps_all_changes_nothing(name):
    case = case_of(name)
    ones = {one.key: torch.ones(one.units) for one in case.structures}
    dense = case.output(case.model)
    with gated(case.model, case.structures, ones):
        assert torch.equal(case.output(case.model), dense)


@pytest.mark.parametrize("name", PIPELINES)
def test_no_attention_and_no_feed_forward_is_forgotten(name):
    case = case_of(name)
    found = {one.attention for one in case.structures if one.kind == "heads"}
    neurons = {cut.module for one in case.structures if one.kind == "ffn" for cut in one.cuts}
    for path, module in case.model.named_modules():
        if any(part in path for part in WHOLE):
            continue
        if hasattr(module, "to_q"):
            assert path in found
        if type(module).__name__ == "FeedForward":
            assert {f"{path}.net.0.proj", f"{path}.net.2"} <= neurons
        if hasattr(module, "proj_mlp"):
            assert f"{path}.proj_mlp" in neurons


@pytest.mark.parametrize("name", PIPELINES)
def test_attention_says_how_many_heads_it_has(name):
    case = case_of(name)
    masks = random_masks(case.structures, 1, kinds=("heads",))
    smaller = remove(case.model, masks)
    for one in case.structures:
        if one.kind == "heads":
            attention = smaller.get_submodule(one.attention)
            heads = int(masks.kept[one.key].sum())
            assert attention.heads == heads
            places = heads * one.cuts[0].width
            assert attention.to_q.out_features == attention.inner_dim == places


def test_every_class_of_the_tables_is_proved():
    proved = {type(case_of(name).model).__name__ for name in PIPELINES}
    assert {name for family in FAMILIES for name in family.classes} == proved
