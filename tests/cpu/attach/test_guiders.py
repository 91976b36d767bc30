"""Guiders: pipelines whose guidance is an object that decides, step by step, what is predicted."""

from __future__ import annotations

from typing import Any

import diffusers
import diffusers.guiders
import pytest
import torch
from diffusers.hooks import LayerSkipConfig
from seen_calls import SeenCalls
from tiny_pipelines import FAMILIES

OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25, "gate": False}
STEPS = 8
MIDDLE = {2, 3, 4, 5}  # the steps of a third prediction
# Eight steps of float32 sampling, as in test_families.py.
NOISE = 1e-4
MODULAR = {"wan": "WanBlocks", "qwen_image": "QwenImageAutoBlocks"}


def skip_layer() -> Any:
    """Guidance away from a prediction of a model without its second block."""
    return diffusers.guiders.SkipLayerGuidance(
        guidance_scale=3.0,
        skip_layer_guidance_start=0.2,
        skip_layer_guidance_stop=0.8,
        skip_layer_config=LayerSkipConfig(indices=[1]),
    )


def perturbed() -> Any:
    """The same with attention that gives every token its own value back."""
    return diffusers.guiders.PerturbedAttentionGuidance(
        guidance_scale=3.0,
        perturbed_guidance_start=0.2,
        perturbed_guidance_stop=0.8,
        perturbed_guidance_config=LayerSkipConfig(
            indices=[1], skip_attention=False, skip_attention_scores=True, skip_ff=False
        ),
    )


def modular(family: str, guider: Any) -> Any:
    """The parts of a tiny pipeline in one made of blocks."""
    source = FAMILIES[family].build()
    pipe = getattr(diffusers, MODULAR[family])().init_pipeline()
    pipe.set_progress_bar_config(disable=True)
    names = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    pipe.update_components(**{name: getattr(source, name) for name in names}, guider=guider)
    return pipe


def run(pipe: Any, family: str) -> torch.Tensor:
    call = {
        key: value
        for key, value in FAMILIES[family].call.items()
        if key not in ("negative_prompt", "guidance_scale", "true_cfg_scale")
    }
    noise = torch.Generator().manual_seed(0)
    return pipe(**call, num_inference_steps=STEPS, output="latents", generator=noise)


def predictions(names: tuple[str, str, str]) -> list[tuple[int, str]]:
    """Two of every step, and the third in the middle ones."""
    return [
        (step, name) for step in range(STEPS) for name in (names if step in MIDDLE else names[:2])
    ]


@pytest.mark.parametrize(
    ("family", "guider", "told_dense"),
    [
        pytest.param("wan", skip_layer, 0, id="wan without a block"),
        pytest.param("qwen_image", perturbed, 4, id="qwen with perturbed attention"),
    ],
)
def test_three_predictions_in_blocks(family: str, guider: Any, told_dense: int) -> None:
    """Blocks name no branches: predictions are told apart by their place in the step."""
    pipe = modular(family, guider())
    truth = run(pipe, family)
    two = diffusers.guiders.ClassifierFreeGuidance(guidance_scale=3.0)
    assert (run(modular(family, two), family) - truth).norm() / truth.norm() > 10 * NOISE
    pipe.enable_sparse_attention(**OPTIONS | {"density": 1.0, "warmup": 0.0})
    exact = run(pipe, family)
    assert (exact - truth).norm() / truth.norm() < NOISE
    assert pipe.sparse_attention_report().dense_calls == told_dense
    pipe.disable_sparse_attention()

    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    run(pipe, family)
    assert seen.forwards == predictions(("0", "1", "2"))
    assert (seen.totals, seen.dense_steps) == ({STEPS}, [0, 1])
    third = {call.layer for call in seen.calls if call.branch == "2"}
    assert third == set(range(FAMILIES[family].layers)) - {1}
    report = seen.session.report()
    assert sum(report.fallbacks.values()) == told_dense
    layers = FAMILIES[family].layers
    assert report.dense_calls == 2 * 2 * layers + told_dense
    assert report.sparse_calls == 2 * (STEPS - 2) * layers + len(MIDDLE) * (layers - 1)
    pipe.disable_sparse_attention()
    assert torch.equal(run(pipe, family), truth)


def test_perturbed_attention_is_not_searched() -> None:
    """The call reaches torch's own attention, where guidance takes it over."""
    pipe = modular("qwen_image", perturbed())
    session = pipe.enable_sparse_attention(**OPTIONS)
    run(pipe, "qwen_image")
    assert session.report().fallbacks == {"torch's attention is exchanged for this call": 4}


def test_attention_that_is_skipped_altogether() -> None:
    """diffusers finds out what to return instead by the exact class of the processor."""
    family = FAMILIES["pixart_alpha"]
    pipe = family.build()
    session = pipe.enable_sparse_attention(**OPTIONS | {"density": 1.0, "warmup": 0.0})
    skip = LayerSkipConfig(indices=[1], fqn="transformer_blocks", skip_ff=False)
    diffusers.hooks.apply_layer_skip(pipe.transformer, skip)
    exact = family.run(pipe)
    assert (session.report().sparse_calls, session.report().dense_calls) == (4, 0)
    pipe.disable_sparse_attention()
    truth = family.run(pipe)
    assert (exact - truth).norm() / truth.norm() < NOISE


@pytest.mark.parametrize("stop", [1.0, 0.5])
def test_a_guider_that_names_its_predictions(stop: float) -> None:
    family = FAMILIES["hunyuan_video15"]
    pipe = family.build()
    pipe.guider = diffusers.guiders.ClassifierFreeGuidance(guidance_scale=3.0, stop=stop)
    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    family.run(pipe, steps=STEPS)
    expected = [(step, "pred_cond") for step in range(STEPS)]
    expected += [(step, "pred_uncond") for step in range(int(stop * STEPS))]
    assert seen.forwards == sorted(expected)
    assert (seen.totals, seen.dense_steps) == ({STEPS}, [0, 1])
    assert seen.session.report().fallbacks == {}


def test_a_device_context_exchanges_nothing() -> None:
    """torch.device() as a context is a mode over torch's functions too, and leaves attention alone."""
    pipe = FAMILIES["wan"].build()
    session = pipe.enable_sparse_attention(**OPTIONS)
    with torch.device("cpu"):
        FAMILIES["wan"].run(pipe)
    assert session.report().fallbacks == {}
    assert session.report().sparse_calls == 18
