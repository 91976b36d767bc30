"""Models that sparse attention cannot help are refused, with the reason and what is supported."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
from tiny_pipelines.parts import language_model, letter_tokenizer
from untouched import states

import sparsediff
from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.model_files import ModelFiles
from sparsediff.models import FACTS, REFUSED


def sana() -> diffusers.SanaPipeline:
    torch.manual_seed(0)
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=32,
    ).eval()
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    ).eval()
    return diffusers.SanaPipeline(
        tokenizer=letter_tokenizer(end=False),
        text_encoder=language_model(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def test_linear_attention_is_refused_and_the_pipeline_untouched() -> None:
    pipe = sana()
    before = states(pipe)
    with pytest.raises(UnsupportedModelError) as refusal:
        pipe.enable_sparse_attention()
    message = str(refusal.value)
    assert "SanaTransformer2DModel: its attention is linear" in message
    assert "supported_models()" in message
    for model in sparsediff.supported_models():
        assert model in message
    assert states(pipe) == before
    pipe.set_progress_bar_config(disable=True)
    out = pipe(
        "a red circle",
        height=32,
        width=32,
        num_inference_steps=2,
        max_sequence_length=16,
        complex_human_instruction=[],
        use_resolution_binning=False,
        clean_caption=False,
        output_type="latent",
    )[0]
    assert torch.isfinite(out).all()


def test_a_refused_model_by_itself() -> None:
    with pytest.raises(UnsupportedModelError, match="attention is linear"):
        sparsediff.enable_sparse_attention(sana().transformer)


def test_a_refused_model_that_is_not_loaded(tmp_path: Path) -> None:
    entry = ["diffusers", "SanaTransformer2DModel"]
    index = {"_class_name": "SanaPipeline", "transformer": entry}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModelError, match=r"attention is linear.*Supported models: Wan"):
        ModelFiles(name=str(tmp_path)).denoisers()


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_models_of_diffusers(name: str) -> None:
    assert isinstance(getattr(diffusers, name), type)
    assert name not in FACTS
    assert REFUSED[name][0].islower()
    assert not REFUSED[name].endswith(".")
