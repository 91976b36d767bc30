"""What stays dense in video models, with its reason, and what of a model is never touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from tiny_pipelines import FAMILIES
from tiny_pipelines.kandinsky5 import kandinsky5
from tiny_pipelines.ltx2 import ltx2
from tiny_pipelines.skyreels import skyreels_forcing

import sparsediff.models
from sparsediff.processors import is_marked

OPTIONS: dict[str, Any] = {"density": 0.3, "block_size": 8, "gate": False}


def marked(model: torch.nn.Module) -> set[str]:
    """Names of the modules whose attention is marked."""
    modules = model.named_modules()
    return {name for name, part in modules if is_marked(getattr(part, "processor", None))}


def test_blocks_of_frames_that_see_only_earlier_ones_run_dense() -> None:
    family = FAMILIES["skyreels_forcing"]
    pipe = skyreels_forcing(block=2)
    dense = family.run(pipe, num_frames=13)
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    assert torch.equal(family.run(pipe, num_frames=13), dense)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, family.calls(4))
    (reason,) = report.fallbacks
    assert "mask" in reason
    assert report.fallbacks[reason] == family.calls(4)


def test_a_sparse_attention_of_the_models_own_is_kept() -> None:
    """Kandinsky's NABLA chooses its blocks itself and hands them over as a mask for FlexAttention."""
    family = FAMILIES["kandinsky5"]
    pipe = kandinsky5(
        attention_type="nabla", attention_P=0.5, attention_wT=1, attention_wH=1, attention_wW=1
    )
    for block in pipe.transformer.visual_transformer_blocks:
        block.self_attention.set_attention_backend("flex")
    size = {"height": 128, "width": 128, "num_frames": 9}
    dense = family.run(pipe, steps=2, **size)
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    assert torch.equal(family.run(pipe, steps=2, **size), dense)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, family.calls(2))
    (reason,) = report.fallbacks
    assert "mask" in reason


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("ltx2", "transformer_blocks.{}.attn1"),
        ("latte", "transformer_blocks.{}.attn1"),
        ("kandinsky5", "visual_transformer_blocks.{}.self_attention"),
        ("framepack", ""),
    ],
)
def test_nothing_else_is_marked(name: str, pattern: str) -> None:
    """Audio, text refiners, attention along time and across to text stay as they are."""
    family = FAMILIES[name]
    pipe = family.build()
    pipe.enable_sparse_attention("window", **OPTIONS)
    expected = {pattern.format(number) for number in range(family.layers)}
    if name == "framepack":
        expected = {f"{kind}transformer_blocks.0.attn" for kind in ("", "single_")}
    assert marked(pipe.transformer) == expected


def test_guidance_that_skips_attention_in_a_layer_is_no_fallback() -> None:
    """LTX-2.3's perturbed layer takes the values as they are: there is nothing to compute, or count."""
    family = FAMILIES["ltx2"]
    pipe = ltx2(perturbed=True)
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    family.run(pipe, stg_scale=1.0, spatio_temporal_guidance_blocks=[1])
    report = session.report()
    assert report.fallbacks == {}
    assert report.dense_calls == 0
    assert report.sparse_calls == family.calls(4) + 4  # and once a step in the layer that is left


IN_PARTS = [name for name, family in FAMILIES.items() if family.graphs]


@pytest.mark.parametrize("name", IN_PARTS)
def test_diffusers_own_code_does_not_compile_into_one_graph(name: str) -> None:
    """Where the facts say so, it is so without sparsediff."""
    family = FAMILIES[name]
    pipe = family.build()
    torch._dynamo.reset()
    for model in sparsediff.models.denoisers(pipe).values():
        facts = sparsediff.models.facts_of(model)
        assert facts is not None
        assert facts.graphs
        for layer in sparsediff.models.self_attention(model, facts):
            block = model.get_submodule(layer.rpartition(".")[0])
            block.compile(fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        family.run(pipe, steps=2)
    torch._dynamo.reset()
