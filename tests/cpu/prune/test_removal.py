"""Removal refuses what it cannot cut exactly, and the check sees every omission of a table."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from pruned_models import case_of
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune import removal
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import masked_difference, remove


def _halved(structures, kinds=("heads", "ffn")):
    """The last half of every structure's units stays."""
    kept = {one.key: torch.arange(one.units) >= one.units // 2 for one in structures}
    return Masks(kept={key: value for key, value in kept.items() if key.split("/")[0] in kinds})


def _without(*names):
    return lambda one: replace(
        one, cuts=tuple(cut for cut in one.cuts if not cut.module.endswith(names))
    )


def _half_of_a_gate(one):
    return replace(one, cuts=tuple(c for c in one.cuts if c.side == "in" or c.start == 0))


def _wrong_segment(one):
    single = one.kind == "ffn" and one.path.startswith("single")
    return replace(one, cuts=tuple(replace(c, start=0) for c in one.cuts)) if single else one


PLANTED = {
    "a row": ("sd3", _without("add_v_proj")),
    "rows of all projections of the text": (
        "flux",
        _without("add_q_proj", "add_k_proj", "add_v_proj"),
    ),
    "a column": ("hunyuan_video", _without("to_add_out")),
    "the number of heads": ("stable_diffusion", lambda one: replace(one, counts=())),
    "the norm over all heads": ("wan", lambda one: replace(one, norms=())),
    "the second half of GEGLU": ("stable_diffusion", _half_of_a_gate),
    "the segment of Flux's output layer": ("flux", _wrong_segment),
    "the rotary embedding over all heads": ("ltx", lambda one: replace(one, rotary="")),
    "what joint attention returns": (
        "cogvideox",
        lambda one: replace(one, returns="one") if one.kind == "heads" else one,
    ),
}


def _refused(case, masks):
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    with pytest.raises(SparseError, match="nothing was changed"):
        remove(case.model, masks, batch=case.batch)
    after = case.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("omission", PLANTED)
def test_the_check_sees_an_omission(omission, monkeypatch):
    name, planted = PLANTED[omission]
    case = case_of(name)
    masks = _halved(case.structures)
    if omission == "what joint attention returns":  # shows where no heads are left
        masks = Masks(kept={key: torch.zeros_like(kept) for key, kept in masks.kept.items()})
    remove(case.model, masks, batch=case.batch)
    wrong = [planted(one) for one in case.structures]
    assert wrong != case.structures
    monkeypatch.setattr(removal, "structures_of", lambda model, kinds: wrong)
    _refused(case, masks)


@pytest.mark.parametrize("name", ["wan", "wan_i2v", "ltx"])
def test_the_check_sees_a_norm_that_is_not_folded(name, monkeypatch):
    case = case_of(name)
    monkeypatch.setattr(removal, "cut", functools.partial(removal.cut, fold_norms=False))
    _refused(case, _halved(case.structures))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_check_is_as_sharp_in_half_precision(dtype, monkeypatch):
    case = case_of("pixart_sigma")
    half = copy.deepcopy(case.model).to(dtype)
    masks = _halved(case.structures)
    smaller = remove(half, masks, batch=case.batch)
    assert {parameter.dtype for parameter in smaller.parameters()} == {dtype}
    wrong = [replace(one, counts=()) for one in case.structures]
    monkeypatch.setattr(removal, "structures_of", lambda model, kinds: wrong)
    with pytest.raises(SparseError, match="nothing was changed"):
        remove(half, masks, batch=case.batch)


def test_the_check_is_in_float32_whatever_is_on(monkeypatch):
    """Under autocast, bfloat16 would round what is to be seen away; TF32 does so on GPUs."""
    case = case_of("stable_diffusion")
    masks = _halved(case.structures)
    conv = torch.backends.cudnn.conv
    own = conv.fp32_precision
    told = []
    output = removal._output

    def noting(model, batch):
        told.append((conv.fp32_precision, torch.get_float32_matmul_precision()))
        return output(model, batch)

    monkeypatch.setattr(removal, "_output", noting)
    plain = masked_difference(case.model, case.structures, masks, case.batch)
    before = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        found = masked_difference(case.model, case.structures, masks, case.batch)
        assert torch.is_autocast_enabled("cpu")
    assert found == plain > 0
    assert told == [("ieee", "highest")] * 4
    assert conv.fp32_precision == own != "ieee"
    assert (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.fp32_precision,
    ) == before


def test_a_batch_of_another_model_is_refused():
    case = case_of("wan")
    batch = case.batch | {"hidden_states": case.batch["hidden_states"][:, :1]}
    with pytest.raises(SparseError, match="does not run on the batch"):
        remove(case.model, _halved(case.structures), batch=batch)


def test_what_is_no_model_and_no_masks_is_refused():
    case = case_of("wan")
    masks = _halved(case.structures)
    for model, given in ((case.model, dict(masks.kept)), (case.model, None), (object(), masks)):
        with pytest.raises(SparseError, match="remove needs a model and Masks, not "):
            remove(model, given)


def test_heads_stay_a_multiple():
    case = case_of("wan")
    masks = _halved(case.structures)  # one head of two
    with pytest.raises(
        SparseError, match="keeps 1 heads, which is no multiple of heads_multiple_of=2"
    ):
        remove(case.model, masks, heads_multiple_of=2)
    none = Masks(kept={key: torch.zeros_like(kept) for key, kept in masks.kept.items()})
    remove(case.model, none, heads_multiple_of=2, batch=case.batch)
    with pytest.raises(SparseError, match="heads_multiple_of=0: needs a whole number from 1 on"):
        remove(case.model, masks, heads_multiple_of=0)


def test_all_numbers_of_a_single_block_fit_what_is_left():
    case = case_of("flux")
    smaller = remove(case.model, _halved(case.structures), batch=case.batch)
    before, block = case.model.single_transformer_blocks[0], smaller.single_transformer_blocks[0]
    assert block.attn.heads == before.attn.heads // 2 == 1
    assert block.attn.inner_dim == block.attn.to_q.out_features == before.attn.inner_dim // 2
    assert block.mlp_hidden_dim == block.proj_mlp.out_features == before.mlp_hidden_dim // 2
    segments = [block.attn.inner_dim, block.mlp_hidden_dim]
    assert block.proj_out._tp_packed_row_blocks == segments
    assert block.proj_out.in_features == sum(segments) == block.proj_out.weight.shape[1]


def test_heads_with_a_rotary_embedding_of_their_own_are_cut_twice():
    case = case_of("ltx")
    path = "heads/transformer_blocks.0.attn1"
    once = remove(case.model, Masks(kept={path: torch.tensor([True, False, True, True])}))
    twice = remove(once, Masks(kept={path: torch.tensor([False, True, True])}), batch=case.batch)
    at_once = remove(case.model, Masks(kept={path: torch.tensor([False, False, True, True])}))
    assert torch.allclose(case.output(twice), case.output(at_once), atol=1e-6)


@pytest.mark.parametrize("kind", ["diffusers", "no eps"])
def test_other_rms_norms_over_all_heads_are_folded_too(kind):
    from diffusers.models.normalization import RMSNorm

    case = case_of("wan")
    model = copy.deepcopy(case.model)
    for block in model.blocks:
        for name in ("norm_q", "norm_k"):
            old = getattr(block.attn1, name)
            size = old.weight.numel()
            new = RMSNorm(size, eps=1e-3, bias=True) if kind == "diffusers" else nn.RMSNorm(size)
            new.weight = old.weight
            setattr(block.attn1, name, new)
    remove(model, _halved(case.structures), batch=case.batch)
