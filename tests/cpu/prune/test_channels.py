"""Channels of a UNet: those that change nothing are found and cut; the rest of the model still runs."""

import copy

import pytest
import torch
from pruned_models import case_of

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.channels import without_channels

pytest.importorskip("torch_pruning", reason="needs the extra `channels` (torch-pruning)")


def _size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _with_idle_twins(unet):
    """Every odd hidden channel of a resnet is the one before it, and nothing reads it.

    Twins leave mean and variance of their group as they are, so without them nothing changes.
    """
    unet = copy.deepcopy(unet)
    for module in unet.modules():
        if type(module).__name__ == "ResnetBlock2D":
            for layer in (module.conv1, module.time_emb_proj):
                layer.weight[1::2] = layer.weight[0::2]
                layer.bias[1::2] = layer.bias[0::2]
            module.conv2.weight[:, 1::2] = 0
            module.norm2.weight[1::2] = 0  # the lesser of the two by magnitude
    return unet


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_channels_that_nothing_reads_are_found_and_cut_exactly(name):
    case = case_of(name)
    unet = _with_idle_twins(case.model)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    smaller = without_channels(unet, ratio=0.5, batch=case.batch)
    expected = case.output(unet)
    difference = float((case.output(smaller) - expected).abs().max() / expected.abs().max())
    assert difference <= 1e-5  # float32: the same sums without terms that are zero
    resnets = [one for one in smaller.modules() if type(one).__name__ == "ResnetBlock2D"]
    assert all(2 * one.conv1.out_channels == one.conv2.out_channels for one in resnets)
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    assert all(parameter.requires_grad for parameter in smaller.parameters())


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_the_residual_stream_is_cut_and_heads_stay(name):
    case = case_of(name)
    hidden = without_channels(case.model, ratio=0.5, batch=case.batch)
    smaller = without_channels(case.model, ratio=0.5, batch=case.batch, scope="all")
    assert _size(smaller) < _size(hidden) < _size(case.model)
    assert smaller.conv_in.out_channels == case.model.conv_in.out_channels // 2
    assert case.output(smaller).isfinite().all()
    assert case.output(smaller).shape == case.output(case.model).shape
    for path, module in case.model.named_modules():
        if hasattr(module, "to_q"):
            left = smaller.get_submodule(path)
            assert left.heads == module.heads
            assert left.to_q.out_features == module.to_q.out_features


def test_groups_too_small_to_share_the_loss_stay_whole():
    case = case_of("stable_diffusion")
    smaller = without_channels(case.model, ratio=0.1, batch=case.batch)
    assert _size(smaller) == _size(case.model)


def test_what_cannot_be_cut_is_refused():
    case = case_of("stable_diffusion")
    with pytest.raises(SparseError, match=r"ratio=1\.0: needs a share"):
        without_channels(case.model, ratio=1.0, batch=case.batch)
    with pytest.raises(UnsupportedModelError, match="WanTransformer3DModel has no channels"):
        without_channels(case_of("wan").model, ratio=0.5, batch={})
