"""What else acts in a model is refused before anything is cut: it would answer for wrong cuts."""

import copy
import re

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import FirstBlockCacheConfig
from pruned_models import case_of

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove

FEWER = Masks(kept={"ffn/blocks.1.ffn": torch.arange(32) > 3})


def _copy():
    return copy.deepcopy(case_of("wan").model)


def _cached(model):
    model.enable_cache(FirstBlockCacheConfig(threshold=0.5))


def _cast(model):
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)


def _grouped(model):
    cpu = torch.device("cpu")
    model.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_cached, r"fbc_block_hook.*Call disable_cache\(\)"),
        (_cast, r"layerwise_casting.*load the model anew"),
        (_grouped, r"group_offloading.*load the model anew"),
        (lambda m: cpu_offload(m, execution_device="cpu"), r"offloaded.*remove_all_hooks\(\)"),
        (lambda m: cpu_offload_with_hook(m, "cpu"), r"offloaded.*remove_all_hooks\(\)"),
    ],
)
def test_what_else_acts_is_named(act, words):
    model = _copy()
    act(model)
    with pytest.raises(UnsupportedModelError, match=words):
        remove(model, FEWER)


def test_a_cache_that_is_turned_off_is_none():
    model = _copy()
    _cached(model)
    model.disable_cache()
    remove(model, FEWER, batch=case_of("wan").batch)


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "not finite"), (0.0, "only zeros")])
def test_an_output_that_could_show_nothing_is_no_proof(value, words):
    model = _copy()
    with torch.no_grad():
        model.proj_out.weight.fill_(value)
        model.proj_out.bias.fill_(value)
    with pytest.raises(SparseError, match=re.escape(words)):
        remove(model, FEWER, batch=case_of("wan").batch)
