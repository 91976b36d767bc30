"""Pruned models as diffusers' own: their classes, the entry in their config, saving and loading."""

import copy
import json
import pickle
import subprocess
import sys

import diffusers
import pytest
import torch
from pruned_models import case_of, random_masks

import sparsediff
from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.masks import Masks
from sparsediff.prune.original_paths import original_masks
from sparsediff.prune.pruned_model import sizes_of
from sparsediff.prune.pruning_sizes import PruningSizes
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import KINDS, structures_of

SCHEMA = "sparsediff.pruning/1"
# Norms over all heads, of added keys too; two lists of blocks; rotary places of heads; single blocks;
# joint attention; the legacy attention of UNets.
FAMILIES = ("wan_i2v", "wan_vace", "ltx", "flux", "sd3", "pixart_sigma", "hunyuan_video", "sdxl")


def _wan():
    return case_of("wan")


def _pruned(name="wan", seed=0):
    case = case_of(name)
    return case, remove(case.model, random_masks(case.structures, seed))


def _load(model, folder, **options):
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, **options)


def _eps(model):
    return [vars(module).get("eps") for module in model.modules()]


def _processors(model):
    return [type(getattr(module, "processor", None)) for module in model.modules()]


def _same_output(case, one, other):
    """Equal to the last bit. Copies: memory of a file has other places, which a CPU's sums follow."""
    return torch.equal(case.output(copy.deepcopy(one)), case.output(copy.deepcopy(other)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pruned_model_is_loaded_as_it_was(name, tmp_path):
    case, model = _pruned(name)
    stock = type(case.model).__name__
    assert type(model) is getattr(sparsediff, f"Pruned{stock}")
    assert isinstance(model, type(case.model))
    loaded = _load(model, tmp_path)
    assert type(loaded) is type(model)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert _eps(loaded) == _eps(model)
    assert _processors(loaded) == _processors(model)
    assert _same_output(case, model, loaded)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == f"Pruned{stock}"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


CODE = """
import torch
torch.set_num_threads(1)
import sparsediff
batch, expected = torch.load("{folder}/call.pt", weights_only=True)
cls = sparsediff.PrunedUNet2DConditionModel
for options in ({{}}, {{"low_cpu_mem_usage": False}}):
    model = cls.from_pretrained("{folder}", **options)
    model.load_state_dict({{k: v.clone() for k, v in model.state_dict().items()}}, assign=True)
    with torch.no_grad():
        print(float((model(**batch, return_dict=False)[0] - expected).abs().max()))
"""


def test_a_fresh_process_loads_it_exactly(tmp_path):
    case, model = _pruned("sdxl")
    model.save_pretrained(tmp_path)
    batch = {k: v for k, v in case.batch.items() if torch.is_tensor(v) or isinstance(v, dict)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: sums of two threads are rounded otherwise
    expected = model(**batch, return_dict=False)[0].detach()
    torch.set_num_threads(threads)
    torch.save((batch, expected), tmp_path / "call.pt")
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(folder=tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.0", "0.0"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, tmp_path):
    case, model = _pruned()
    loaded = _load(model, tmp_path, torch_dtype=dtype)
    assert loaded.dtype == dtype
    expected = copy.deepcopy(model).to(dtype)
    for name, value in loaded.state_dict().items():
        whole = any(part in name for part in model._keep_in_fp32_modules)
        assert torch.equal(
            value, model.state_dict()[name] if whole else expected.state_dict()[name]
        )
    batch = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in case.batch.items()
        if torch.is_tensor(v)
    }
    assert loaded(**batch, return_dict=False)[0].isfinite().all()


def test_shards(tmp_path):
    case, model = _pruned()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert _same_output(case, model, type(model).from_pretrained(tmp_path))


def test_a_pruned_model_is_pruned_again(tmp_path):
    case = _wan()
    first = random_masks(case.structures, 0)
    once = remove(case.model, first, batch=case.batch)
    second = random_masks(structures_of(once, KINDS), 1)
    twice = remove(once, second, batch=case.batch)
    assert _same_output(case, twice, _load(twice, tmp_path))
    # By masks of the original in one go: the same model, but for the rounding of folded norms.
    both = original_masks(first, second)
    at_once = remove(case.model, both, batch=case.batch)
    assert sizes_of(at_once) == sizes_of(twice)
    ours, theirs = at_once.state_dict(), twice.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=0)


def test_masks_that_do_not_follow_are_refused():
    earlier = Masks(kept={"ffn/blocks.0.ffn": torch.tensor([True, False, True])})
    later = Masks(kept={"ffn/blocks.0.ffn": torch.tensor([True, False, True])})
    with pytest.raises(
        SparseError, match=r"3 units, but the earlier masks leave 2 in ffn/blocks.0.ffn"
    ):
        original_masks(earlier, later)


def test_removed_blocks_are_named_by_their_first_places(tmp_path):
    case = case_of("sdxl")
    path = "mid_block.attentions.0.transformer_blocks"
    gone = torch.tensor([False])
    once = remove(case.model, Masks(kept={f"blocks/{path}.0": gone}), batch=case.batch)
    assert once.config.pruning == {"schema": SCHEMA, "heads": {}, "ffn": {}, "blocks": {path: [1]}}
    halved = {f"heads/{path}.0.attn1": torch.arange(4) < 2}
    twice = remove(once, Masks(kept=halved), batch=case.batch)
    assert twice.config.pruning["heads"] == {f"{path}.1.attn1": 2}
    assert _same_output(case, twice, _load(twice, tmp_path))


def test_nothing_removed_is_the_stock_class():
    case = _wan()
    whole = {one.key: torch.ones(one.units, dtype=torch.bool) for one in case.structures}
    assert type(remove(case.model, Masks(kept=whole))) is type(case.model)


def test_the_stock_class_refuses_the_folder(tmp_path):
    case = _wan()
    for kind in ("heads", "ffn"):
        remove(case.model, random_masks(case.structures, 0, kinds=(kind,))).save_pretrained(
            tmp_path
        )
        with pytest.raises(ValueError, match="expected shape"):
            diffusers.WanTransformer3DModel.from_pretrained(tmp_path)


def test_the_model_is_smaller(tmp_path):
    case, model = _pruned()
    model.save_pretrained(tmp_path / "pruned")
    case.model.save_pretrained(tmp_path / "whole")
    sizes = [
        (tmp_path / name / "diffusion_pytorch_model.safetensors").stat().st_size
        for name in ("pruned", "whole")
    ]
    numbers = [sum(p.numel() for p in m.parameters()) for m in (model, case.model)]
    assert numbers[0] < numbers[1]
    assert sizes[0] < sizes[1] * (numbers[0] / numbers[1] + 0.1)  # names and shapes are in it too
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    layer = model.get_submodule("blocks.0.ffn.net.2")
    assert (layer.out_features, layer.in_features) == shapes["blocks.0.ffn.net.2.weight"]


def test_copies_pickles_and_configs():
    case, model = _pruned()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert torch.equal(case.output(other), case.output(model))
    again = type(model).from_config(model.config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    with torch.device("meta"):
        assert type(model).from_config(dict(model.config)).device.type == "meta"
    whole = type(model).from_config(case.model.config)  # no entry: a whole model of the class
    assert whole.config.pruning is None
    whole.load_state_dict(case.model.state_dict())
    assert remove(whole, random_masks(case.structures, 0)).config.pruning == model.config.pruning


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (3, "pruning = 3: needs an object"),
        ({}, "has no key 'schema'"),
        ({"schema": "sparsediff.pruning/2"}, "pruning.schema = 'sparsediff.pruning/2'"),
        ({"schema": SCHEMA, "head": {}}, "unknown key 'head'.*Did you mean 'heads'"),
        ({"schema": SCHEMA, "heads": [1]}, "needs an object of sizes"),
        ({"schema": SCHEMA, "heads": {"blocks.0.attn1": True}}, "needs a whole number"),
        ({"schema": SCHEMA, "heads": {"blocks.0.attn1": -1}}, "needs a whole number"),
        ({"schema": SCHEMA, "heads": {"blocks.0.attn1": 1.0}}, "needs a whole number"),
        ({"schema": SCHEMA, "heads": {"blocks.0.attn1": 10**400}}, "a number of many digits"),
        ({"schema": SCHEMA, "heads": {"blocks.0.attn1": 3}}, "attn1 = 3, of 2 that the model has"),
        ({"schema": SCHEMA, "heads": {"blocks.9.attn1": 1}}, "'blocks.9.attn1', which is none of"),
        ({"schema": SCHEMA, "heads": {"__class__": 1}}, "'__class__', which is none of"),
        ({"schema": SCHEMA, "ffn": {"blocks.0.ffn": 33}}, "ffn = 33, of 32 that the model has"),
        ({"schema": SCHEMA, "blocks": {"blocks": 2}}, "pruning.blocks.blocks = 2: needs a list"),
        ({"schema": SCHEMA, "blocks": {"blocks": [1, 0]}}, "ascending order"),
        ({"schema": SCHEMA, "blocks": {"blocks": [0, 0]}}, "ascending order"),
        ({"schema": SCHEMA, "blocks": {"blocks": [0, 3]}}, "has place 3 of 3 blocks"),
        ({"schema": SCHEMA, "blocks": {"rope": [0]}}, "'rope', which is no list of blocks"),
        ({"schema": SCHEMA, "blocks": {"a" * 10**5: [0]}}, "no list of blocks"),
    ],
)
def test_broken_entries_are_refused(entry, error, tmp_path):
    _, model = _pruned()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pruning": entry}))
    with pytest.raises(SparseError, match=error) as caught:
        type(model).from_pretrained(tmp_path)
    assert len(str(caught.value)) < 600


def test_an_entry_comes_back_as_it_was():
    _, model = _pruned()
    sizes = sizes_of(model)
    assert sizes
    assert PruningSizes.read(json.loads(json.dumps(sizes.to_dict()))) == sizes
    assert not PruningSizes()


def test_names():
    assert sparsediff.ModelMixin is diffusers.ModelMixin
    assert sparsediff.PrunedFluxTransformer2DModel is sparsediff.PrunedFluxTransformer2DModel
    for name in ("Pruned", "PrunedWan", "PrunedAutoencoderKL", "PrunedPrunedWanTransformer3DModel"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(sparsediff, name)
    assert not [
        name for name in dir(sparsediff) if name.startswith("Pruned") or name == "ModelMixin"
    ]


def test_a_class_of_somebody_else_is_refused():
    class Own(diffusers.WanTransformer3DModel):
        pass

    case = _wan()
    model = copy.deepcopy(case.model)
    model.__class__ = Own
    with pytest.raises(UnsupportedModelError, match="Own is no class of diffusers"):
        remove(model, random_masks(case.structures, 0))
