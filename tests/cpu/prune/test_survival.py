"""What users do to a model works on a pruned one: LoRA, compile, sparse attention, plans, figures."""

import copy
import logging

import pytest
import torch
import torch._dynamo
from counted import OPTIONS
from peft import LoraConfig
from plan_files import plan_of
from pruned_models import case_of
from pruned_pipelines import UNET_MASKS, WAN_MASKS, pruned_sdxl, pruned_wan
from tiny_pipelines import FAMILIES, wan
from torch._dynamo.testing import CompileCounter

from sparsediff.estimate import estimate
from sparsediff.kernels.errors import AlreadyEnabledError, PlanMismatchError, UnsupportedModelError
from sparsediff.model_files import ModelFiles
from sparsediff.plans import Fingerprint
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.saving import save_pruned

WAN = FAMILIES["wan"]
LORA = {"r": 2, "target_modules": ["to_q", "to_k", "to_v", "to_out.0", "net.2"]}
# Calls of two layers in two forwards of four steps, of six in one: the first step is dense.
RUNS = {"wan": (pruned_wan, (12, 4)), "sdxl": (pruned_sdxl, (18, 6))}


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", RUNS)
def test_sparse_attention_on_what_is_left(name):
    build, calls = RUNS[name]
    family, pipe = FAMILIES[name], build()
    small = {"height": 64, "width": 64} if name == "sdxl" else {}
    dense = family.run(pipe, **small)
    session = pipe.enable_sparse_attention(**OPTIONS)
    sparse = family.run(pipe, **small)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == calls
    assert report.fallbacks == {}
    heads = {mask.counts.shape[1] for mask in session.masks().values()}
    assert heads == ({1, 2} if name == "wan" else {1, 4})
    assert not torch.equal(sparse, dense)
    pipe.disable_sparse_attention()
    assert torch.equal(family.run(pipe, **small), dense)


def test_a_model_without_self_attention_says_so():
    case = case_of("wan")
    none = {f"heads/blocks.{i}.attn1": torch.zeros(2, dtype=torch.bool) for i in range(3)}
    model = remove(case.model, Masks(kept=none))
    with pytest.raises(UnsupportedModelError, match="lost the heads of all its self-attention"):
        model.enable_sparse_attention()


def test_a_lora_is_trained_saved_and_loaded(tmp_path):
    case = case_of("wan")
    model = remove(wan(layers=4).transformer, WAN_MASKS)
    before = case.output(model)
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(**LORA))
    assert torch.equal(case.output(model), before)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model(**case.batch, return_dict=False)[0].square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    model.save_lora_adapter(tmp_path)
    other = remove(wan(layers=4).transformer, WAN_MASKS)
    other.load_lora_adapter(
        str(tmp_path), weight_name="pytorch_lora_weights.safetensors", prefix=None
    )
    assert torch.equal(case.output(copy.deepcopy(other)), case.output(copy.deepcopy(model)))
    with pytest.raises(UnsupportedModelError, match="Prune before adding LoRA"):
        remove(model, Masks(kept={"ffn/blocks.0.ffn": torch.arange(32) > 3}))


def test_blocks_compile_whole_one_graph_for_each_size():
    pipe = pruned_wan()
    options = OPTIONS | {"gate": False}
    pipe.enable_sparse_attention(**options)
    eager = WAN.run(pipe, steps=2)
    pipe.disable_sparse_attention()
    counter = CompileCounter()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    session = pipe.enable_sparse_attention(**options)
    compiled = WAN.run(pipe, steps=2)
    assert counter.frame_count == 3  # no heads, one head and two: three blocks of different sizes
    assert session.report().sparse_calls > 0
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)


def test_a_plan_of_the_stock_model_is_refused_where_heads_differ(tmp_path, caplog):
    stock = wan(layers=4)
    plan = plan_of(stock)
    with pytest.raises(
        PlanMismatchError, match="layers of transformer: the plan has 4, this model 2"
    ):
        pruned_wan().enable_sparse_attention(plan)
    fewer = wan(layers=4)
    one = {"heads/blocks.2.attn1": torch.tensor([True, False])}
    fewer.transformer = remove(fewer.transformer, Masks(kept=one))
    with pytest.raises(PlanMismatchError, match="the plan has 2 in layer 2, this model 1"):
        fewer.enable_sparse_attention(plan)
    neurons = wan(layers=4)
    less = {"ffn/blocks.2.ffn": torch.arange(32) % 2 > 0}
    neurons.transformer = remove(neurons.transformer, Masks(kept=less))
    with caplog.at_level(logging.WARNING):
        session = neurons.enable_sparse_attention(plan, gate=False)
    WAN.run(neurons)
    assert session.report().sparse_calls > 0  # its attention is the stock model's
    assert caplog.text == ""


def test_a_plan_of_a_pruned_model_fits_it_after_loading(tmp_path):
    pipe = pruned_wan()
    plan = plan_of(pipe)
    assert plan.fingerprint.heads == (1, 2)
    plan.save_pretrained(tmp_path / "plan")
    save_pruned(tmp_path / "model", pipe, WAN_MASKS)
    loaded = type(pipe).from_pretrained(tmp_path / "model", transformer_2=None)
    assert Fingerprint.of(loaded) == Fingerprint.of(pipe)
    session = loaded.enable_sparse_attention(tmp_path / "plan", gate=False)
    WAN.run(loaded)
    assert session.report().sparse_calls > 0


def test_figures_are_of_what_is_left(tmp_path):
    wan(layers=4).save_pretrained(tmp_path / "whole")
    pipe = pruned_wan()
    save_pruned(tmp_path / "pruned", pipe, WAN_MASKS)
    found = {
        name: estimate(ModelFiles(name=str(tmp_path / name)), size=(64, 64, 9))
        for name in ("whole", "pruned")
    }
    pruned, whole = found["pruned"], found["whole"]
    assert pruned.denoisers == {"transformer": "PrunedWanTransformer3DModel"}
    assert (whole.layers, pruned.layers, pruned.heads, pruned.head_dim) == (4, 2, 2, 12)
    assert pruned.parameters["transformer"] == sum(p.numel() for p in pipe.transformer.parameters())
    assert pruned.sparse_gib == pytest.approx(whole.sparse_gib * 3 / 8)  # heads of all layers


def test_pruning_with_sparse_attention_enabled_is_refused():
    pipe = wan(layers=1)
    keep = Masks(kept={"ffn/blocks.0.ffn": torch.arange(32) > 3})
    pipe.enable_sparse_attention(**OPTIONS)
    with pytest.raises(AlreadyEnabledError, match=r"Call disable_sparse_attention\(\) first"):
        remove(pipe.transformer, keep)
    pipe.disable_sparse_attention()
    compiled = torch.compile(pipe.transformer, backend="eager")
    assert type(remove(compiled, keep)).__name__ == "PrunedWanTransformer3DModel"


def test_masks_of_a_unet_take_what_they_name():
    unet = pruned_sdxl().unet
    assert unet.config.pruning["heads"] == {
        key.removeprefix("heads/"): int(kept.sum())
        for key, kept in UNET_MASKS.kept.items()
        if key.startswith("heads/")
    }
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="a")
    unet.set_adapters("a", {"mid": 0.5, "up": 0.25})  # by block, as for the stock class
    assert unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.scaling["a"] == 0.5 * 4
