"""UNets with what users combine: other processors, image prompts, FreeU, starts from a picture."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_pipelines import FAMILIES
from tiny_pipelines.parts import picture
from tiny_pipelines.unet import sdxl

SDXL = FAMILIES["sdxl"]
OPTIONS: dict[str, Any] = {"density": 0.3, "block_size": 8, "gate": False}
REPLACED = "the attention processor was replaced"
SLICED = "SlicedAttnProcessor computes attention without diffusers' attention dispatch"


def image_prompt(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of an IP adapter for a UNet."""
    torch.manual_seed(0)
    ip = {}
    cross = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for key, name in enumerate(cross):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_k", "to_v"):
            weight = getattr(attention, part).weight
            ip[f"{2 * key + 1}.{part}_ip.weight"] = torch.randn_like(weight)
    width = unet.config.cross_attention_dim
    image = {
        "proj.weight": torch.randn(4 * width, 16),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": image, "ip_adapter": ip}


def test_attention_slicing_runs_dense_with_a_reason() -> None:
    pipe = sdxl()
    pipe.enable_attention_slicing()
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    SDXL.run(pipe, steps=2)
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (0, {SLICED: SDXL.calls(2)})


@pytest.mark.parametrize("switch", ["enable_attention_slicing", "fuse_qkv_projections"])
def test_processors_exchanged_while_enabled_are_noticed(switch: str) -> None:
    pipe = sdxl()
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    getattr(pipe, switch)()
    SDXL.run(pipe, steps=2)
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (0, {REPLACED: SDXL.calls(2)})


def test_fused_projections_run_sparse() -> None:
    """diffusers gives one processor to all layers: each needs its own mark."""
    pipe = sdxl()
    pipe.fuse_qkv_projections()
    shared = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.processor
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    SDXL.run(pipe, steps=2)
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (SDXL.calls(2), {})
    session.disable()
    assert {id(p) for p in pipe.unet.attn_processors.values()} == {id(shared)}


@pytest.mark.parametrize("when", ["before", "while enabled"])
def test_image_prompts(when: str) -> None:
    """The image is in cross-attention; loading an adapter exchanges all processors."""
    pipe = sdxl()
    if when == "before":
        pipe.unet._load_ip_adapter_weights([image_prompt(pipe.unet)], low_cpu_mem_usage=False)
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    if when == "while enabled":
        pipe.unet._load_ip_adapter_weights([image_prompt(pipe.unet)], low_cpu_mem_usage=False)
    embeddings = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    sparse = SDXL.run(pipe, steps=2, ip_adapter_image_embeds=[embeddings])
    report = session.report()
    session.disable()
    dense = SDXL.run(pipe, steps=2, ip_adapter_image_embeds=[embeddings])
    if when == "before":
        assert (report.sparse_calls, report.fallbacks) == (SDXL.calls(2), {})
        assert not torch.equal(sparse, dense)
    else:
        assert (report.sparse_calls, report.fallbacks) == (0, {REPLACED: SDXL.calls(2)})
        assert torch.equal(sparse, dense)


def test_freeu_is_left_alone() -> None:
    pipe = sdxl()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    dense = SDXL.run(pipe, steps=2)
    session = pipe.enable_sparse_attention("window", **(OPTIONS | {"density": 1.0}))
    full = SDXL.run(pipe, steps=2)
    assert (session.report().sparse_calls, session.report().fallbacks) == (SDXL.calls(2), {})
    # Two steps of float32 sampling, each call 1e-6 off by its order of summation.
    assert (full - dense).norm() < 1e-4 * dense.norm()


def test_the_first_step_of_image_to_image_is_step_0() -> None:
    pipe = sdxl(diffusers.StableDiffusionXLImg2ImgPipeline)
    pipe.set_progress_bar_config(disable=True)
    session = pipe.enable_sparse_attention("window", warmup=0.25, **OPTIONS)
    pipe(
        "a red circle",
        image=picture(192, 192),
        strength=0.5,
        num_inference_steps=8,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )
    rows = session.report().steps
    assert [row["dense_calls"] for row in rows] == [SDXL.layers, 0, 0, 0]
    assert [row["sparse_calls"] for row in rows] == [0] + [SDXL.layers] * 3


def test_levels_that_fit_into_one_block_run_dense_as_planned() -> None:
    """At 128 x 128 pixels the first of two levels has 256 tokens, the second 64: one block."""
    family = FAMILIES["stable_diffusion"]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=64, gate=False)
    family.run(pipe, steps=2)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (2 * 3, 2 * 4, {})
    assert report.notes == ["levels of 64 tokens run dense: 64 tokens fit into one block of 64"]
    family.run(pipe, steps=2, height=64, width=64)
    report = session.report()
    reason = "64 tokens fit into one block of 64"
    assert (report.sparse_calls, report.fallbacks) == (0, {reason: 2 * 3})


@pytest.mark.parametrize("which", ["refiner", "guidance without a negative prompt"])
def test_other_calls_of_stable_diffusion_xl(which: str) -> None:
    pipe = sdxl(diffusers.StableDiffusionXLImg2ImgPipeline)
    pipe.set_progress_bar_config(disable=True)
    session = pipe.enable_sparse_attention("window", **OPTIONS)
    part = (
        {"denoising_start": 0.5} if which == "refiner" else {"strength": 1.0, "guidance_scale": 5.0}
    )
    pipe(
        "a red circle",
        image=picture(192, 192),
        num_inference_steps=4,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        **part,
    )
    report = session.report()
    steps = 2 if which == "refiner" else 4
    assert (report.sparse_calls, report.fallbacks) == (SDXL.layers * steps, {})
    assert len(report.steps) == steps
