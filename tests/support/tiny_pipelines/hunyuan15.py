"""HunyuanVideo 1.5 at toy size."""

from __future__ import annotations

import diffusers
import torch
from diffusers.guiders import ClassifierFreeGuidance
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from tiny_pipelines.family import Family
from tiny_pipelines.parts import chat_tokenizer, letter_tokenizer, t5_encoder

_TEXT = {"image": 5, "glyphs": 8, "prompt": 20}


def qwen_text(width: int = 16) -> Qwen2_5_VLTextModel:
    torch.manual_seed(0)
    config = Qwen2_5_VLTextConfig(
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
        rope_parameters={
            "mrope_section": [1, 1, 2],
            "rope_type": "default",
            "rope_theta": 1000000.0,
        },
    )
    return Qwen2_5_VLTextModel(config).eval()


def hunyuan_video15() -> diffusers.HunyuanVideo15Pipeline:
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    ).eval()
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    ).eval()
    pipe = diffusers.HunyuanVideo15Pipeline(
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=qwen_text(),
        tokenizer=chat_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=letter_tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )
    # Text lengths are no arguments of this pipeline but numbers of its own.
    pipe.prompt_template_encode_start_idx = 0
    pipe.vision_num_semantic_tokens = _TEXT["image"]
    pipe.tokenizer_2_max_length = _TEXT["glyphs"]
    pipe.tokenizer_max_length = _TEXT["prompt"]
    return pipe


FAMILIES = (
    Family(
        name="hunyuan_video15",
        build=hunyuan_video15,
        layers=2,
        forwards=2,
        text=sum(_TEXT.values()),
        guidance="two calls",
        call={
            "prompt": 'a "red" circle',
            "negative_prompt": "blurry",
            "height": 16,
            "width": 16,
            "num_frames": 7,
        },
    ),
)
