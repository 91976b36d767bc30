"""Layers whose rows are not their units' any more are refused, each with what to do."""

import copy

import pytest
import torch
from peft import LoraConfig
from pruned_models import case_of
from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import structures_of


class QuantisedLinear(nn.Linear):
    """Stands in for the layers of bitsandbytes, GGUF and quanto."""


class QuantisedWeight(torch.Tensor):
    """Stands in for the weights of torchao."""


def _copy(name):
    return copy.deepcopy(case_of(name).model)


@pytest.mark.parametrize("name", ["wan", "flux", "stable_diffusion"])
def test_fused_projections(name):
    model = _copy(name)
    model.fuse_qkv_projections()
    with pytest.raises(UnsupportedModelError, match="has fused projections"):
        structures_of(model)
    model.unfuse_qkv_projections()
    case = case_of(name)
    masks = Masks(
        kept={
            one.key: torch.arange(one.units) > 0 for one in case.structures if one.kind == "heads"
        }
    )
    smaller = remove(model, masks, batch=case.batch)
    # What older attention keeps after unfusing would be of the old size.
    assert not any(path.endswith(("to_qkv", "to_kv")) for path, _ in smaller.named_modules())


def test_lora():
    model = _copy("wan")
    model.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    with pytest.raises(UnsupportedModelError, match="Prune before adding LoRA"):
        structures_of(model)


def test_quantised_layers():
    model = _copy("wan")
    old = model.blocks[1].ffn.net[2]
    model.blocks[1].ffn.net[2] = QuantisedLinear(old.in_features, old.out_features)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.ffn\.net\.2 is QuantisedLinear"):
        structures_of(model)


def test_quantised_weights():
    model = _copy("wan")
    layer = model.blocks[0].attn1.to_q
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(QuantisedWeight))
    with pytest.raises(UnsupportedModelError, match=r"Linear over QuantisedWeight.*quantising"):
        structures_of(model)


def test_an_image_prompt_adapter():
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    model = _copy("stable_diffusion")
    attention = model.mid_block.attentions[0].transformer_blocks[0].attn2
    attention.set_processor(IPAdapterAttnProcessor2_0(attention.inner_dim, 32))
    with pytest.raises(UnsupportedModelError, match="Unload the IP-Adapter"):
        structures_of(model)


@pytest.mark.parametrize("norm", [nn.LayerNorm(24), nn.RMSNorm(24, elementwise_affine=False)])
def test_a_norm_over_all_heads_that_cannot_be_folded(norm):
    model = _copy("wan")
    model.blocks[0].attn1.norm_q = norm
    with pytest.raises(UnsupportedModelError, match="an RMS norm with a weight"):
        structures_of(model)


def test_keys_that_heads_share():
    model = _copy("pixart_sigma")
    attention = model.transformer_blocks[0].attn1
    attention.to_k = nn.Linear(attention.to_k.in_features, attention.to_k.out_features // 2)
    with pytest.raises(UnsupportedModelError, match="heads that share keys"):
        structures_of(model)


def test_an_unknown_architecture_and_an_unknown_target():
    with pytest.raises(
        UnsupportedModelError, match=r"Linear cannot be pruned.*WanTransformer3DModel"
    ):
        structures_of(nn.Linear(2, 2))
    with pytest.raises(SparseError, match="target='channels': needs some of heads, ffn, blocks"):
        structures_of(_copy("wan"), ("channels",))
