"""Kandinsky 5 at toy size, with all of its attention or with its own sparse one (NABLA)."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.hunyuan import hunyuan_vae
from tiny_pipelines.parts import clip_encoder, clip_tokenizer, language_model, letter_tokenizer


def kandinsky5(**attention: Any) -> diffusers.Kandinsky5T2VPipeline:
    torch.manual_seed(0)
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=32,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
        visual_cond=False,
        **attention,
    ).eval()
    for name, weight in transformer.named_parameters():
        if "modulation" in name:  # zero as the class makes it, so that no block does anything
            torch.nn.init.normal_(weight, std=0.1)
    pipe = diffusers.Kandinsky5T2VPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        text_encoder=language_model(),
        tokenizer=letter_tokenizer(end=False),
        text_encoder_2=clip_encoder(),
        tokenizer_2=clip_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
    )
    pipe.prompt_template, pipe.prompt_template_encode_start_idx = "{}", 0
    return pipe


FAMILIES = (
    Family(
        name="kandinsky5",
        build=kandinsky5,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=GUIDED | {"guidance_scale": 4.0},
    ),
)
