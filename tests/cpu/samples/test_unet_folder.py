"""The embedded UNet: complete, small, safe, loaded by stock diffusers, reached by sparse attention."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

import sparsediff
from sparsediff.generation import GenerationRecipe
from sparsediff.search import RandomBlocks

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
MODEL = SAMPLES / "models/shapes-unet"
sys.path.insert(0, str(SAMPLES / "train_unet"))


@pytest.fixture(scope="module")
def generation() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODEL / "generation.json").read_text())
    return found


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    """As a user loads it, without naming a dtype."""
    pipe = StableDiffusionPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: StableDiffusionPipeline, generation: dict[str, Any], **changes: Any) -> Any:
    call = {**generation["call"], "num_inference_steps": 2, **changes}
    generator = torch.Generator().manual_seed(0)
    return pipe(generation["prompt"], generator=generator, output_type="pt", **call).images


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert len(files) >= 11
    assert sum(file.stat().st_size for file in files) < 12e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".png"}
    # A pickle renamed to .safetensors would not start with a JSON header.
    for file in MODEL.rglob("*.safetensors"):
        assert file.read_bytes()[8:10] == b'{"'


def test_every_part_is_of_a_stock_class(pipe: StableDiffusionPipeline) -> None:
    assert isinstance(pipe.vae, AutoencoderKL)
    assert isinstance(pipe.text_encoder, CLIPTextModel)
    assert isinstance(pipe.tokenizer, CLIPTokenizer)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.timestep_spacing == "trailing"
    assert pipe.safety_checker is None
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}


def test_the_recommended_call_gives_a_picture(
    pipe: StableDiffusionPipeline, generation: dict[str, Any]
) -> None:
    assert set(generation) == {"schema", "prompt", "call", "dtype", "autocast"}
    assert GenerationRecipe.from_dict(generation, source="x").call == generation["call"]
    image = picture(pipe, generation)
    assert image.shape == (1, 3, 64, 64)
    assert torch.isfinite(image).all()
    # The sizes of the call are the pipeline's own defaults.
    assert torch.equal(image, picture(pipe, generation, height=None, width=None))


def test_tokenizer_and_text_encoder_are_what_the_scripts_build(
    pipe: StableDiffusionPipeline,
) -> None:
    from caption_tokens import CAPTION_TOKENS, build_text_encoder, encode
    from pictures import every_caption

    for text in every_caption():  # a token each word, and the two marks
        assert len(pipe.tokenizer(text).input_ids) == len(text.split()) + 2 <= CAPTION_TOKENS
    built = build_text_encoder().state_dict()
    for name, published in pipe.text_encoder.state_dict().items():
        assert torch.equal(published, built[name]), name
    # Training sees what the pipeline sees, and no two captions look alike.
    text = every_caption()[:3]
    positive, _ = pipe.encode_prompt(text, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.equal(positive, encode(text))
    every = encode(every_caption()).flatten(1)
    assert float(torch.pdist(every).min()) > 1


def test_the_judge_knows_drawn_pictures_and_the_autoencoder_keeps_them(
    pipe: StableDiffusionPipeline,
) -> None:
    from clips import generator_of
    from evaluate_unet import score
    from pictures import captions_of, draw_pictures

    labels, pictures = draw_pictures(24, generator_of(3))
    prompts = captions_of(labels, torch.ones(24, dtype=torch.bool))
    with torch.no_grad():
        latents = pipe.vae.encode(pictures).latent_dist.mode()
        decoded = pipe.vae.decode(latents).sample.clamp(-1, 1)
    assert score((pictures + 1) / 2, prompts)["all"] == 1
    assert score((decoded + 1) / 2, prompts)["all"] == 1
    assert float(((decoded - pictures) / 2).square().mean()) < 10**-3  # 30 dB
    # Stable Diffusion's one scaling factor suffices: the scale is in the weights.
    assert pipe.vae.config.scaling_factor == 1
    assert float((latents.std(dim=(0, 2, 3)) - 1).abs().max()) < 0.25


def test_sparse_attention_reaches_the_256_tokens(
    pipe: StableDiffusionPipeline, generation: dict[str, Any]
) -> None:
    dense = picture(pipe, generation)
    images = {}
    for density in (1.0, 0.5):
        method = RandomBlocks(density=density, warmup=0.0)
        sparsediff.enable_sparse_attention(pipe, method, gate=False)
        try:
            images[density] = picture(pipe, generation)
            report = pipe.sparse_attention_report()
        finally:
            sparsediff.disable_sparse_attention(pipe)
        # Two steps: three of ten self-attention layers see 16 x 16 latents, the others one block.
        assert (report.sparse_calls, report.dense_calls) == (2 * 3, 2 * 7)
        assert report.fallbacks == {}
        assert report.sparse_density == density
    # All blocks in another order of summation, through 2 steps of 30 layers; then half of them.
    assert float((images[1.0] - dense).abs().max()) < 1e-4
    assert float((images[0.5] - dense).abs().max()) > 1e-3
    assert torch.equal(picture(pipe, generation), dense)
