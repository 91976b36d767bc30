"""LTX-2 at toy size: video and audio, of which only the video's self-attention runs sparse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import language_model, letter_tokenizer, picture

_TEXT_WIDTH = 16


def _transformer(perturbed: bool) -> diffusers.LTX2VideoTransformer3DModel:
    torch.manual_seed(0)
    return diffusers.LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=_TEXT_WIDTH,
        rope_double_precision=False,
        rope_type="split",
        perturbed_attn=perturbed,
    ).eval()


def _connectors() -> LTX2TextConnectors:
    torch.manual_seed(0)
    shape: dict[str, Any] = {}
    for kind in ("video", "audio"):
        shape |= {
            f"{kind}_connector_num_attention_heads": 2,
            f"{kind}_connector_attention_head_dim": 8,
            f"{kind}_connector_num_layers": 1,
            f"{kind}_connector_num_learnable_registers": None,
        }
    return LTX2TextConnectors(
        caption_channels=_TEXT_WIDTH,
        text_proj_in_factor=3,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
        **shape,
    ).eval()


def _vae() -> diffusers.AutoencoderKLLTX2Video:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLLTX2Video(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        timestep_conditioning=False,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()


def _audio() -> dict[str, Any]:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        norm_type="pixel",
        causality_axis="height",
        mid_block_add_attention=False,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return {"audio_vae": vae.eval(), "vocoder": vocoder.eval()}


def ltx2(*, perturbed: bool = False, condition: bool = False) -> diffusers.LTX2Pipeline:
    """LTX-2; `perturbed` with LTX-2.3's attention; `condition` on frames given."""
    pipeline = diffusers.LTX2ConditionPipeline if condition else diffusers.LTX2Pipeline
    return pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(),
        text_encoder=language_model(_TEXT_WIDTH),
        tokenizer=letter_tokenizer(),
        connectors=_connectors(),
        transformer=_transformer(perturbed),
        **_audio(),
    )


# diffusers' defaults are four forwards a step; here only the two of guidance by the prompt.
CALL = GUIDED | {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "guidance_scale": 3.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "use_cross_timestep": False,
    "spatio_temporal_guidance_blocks": None,
}


def ltx2_condition() -> diffusers.LTX2ConditionPipeline:
    """LTX-2 that is given a frame, whose tokens stand behind the video's."""
    return ltx2(condition=True)


# The fields of an LTX2VideoCondition, whose module not every supported transformers can load.
_CONDITION = SimpleNamespace(frames=picture(32, 32), index=2, strength=1.0, crf=0)

FAMILIES = (
    Family(name="ltx2", build=ltx2, layers=2, guidance="one batch", call=CALL),
    Family(
        name="ltx2_condition",
        build=ltx2_condition,
        layers=2,
        guidance="one batch",
        twice="num_videos_per_prompt",
        call=CALL | {"conditions": [_CONDITION]},
    ),
)
