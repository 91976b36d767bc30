"""Real diffusers pipelines at toy size with random weights, built without any download.

Random weights rank sparse methods backwards, so nothing here may judge quality: these pipelines show
that the right path ran and that dense results are unchanged.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,"


def letter_tokenizer(*, end: bool = True) -> PreTrainedTokenizerFast:
    """One token a letter, T5 style."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {letter: 3 + i for i, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    if end:
        tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows single letters."""
    words = [*LETTERS[:36], *(f"{letter}</w>" for letter in LETTERS[:36])]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {word: index for index, word in enumerate(words)}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text("")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def t5_encoder() -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config).eval()


def clip_encoder(width: int = 32) -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        bos_token_id=72,
        eos_token_id=73,
        hidden_size=width,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        pad_token_id=1,
        vocab_size=80,
        projection_dim=32,
    )
    return CLIPTextModel(config).eval()


def wan_transformer(*, layers: int = 3) -> diffusers.WanTransformer3DModel:
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()


def wan(*, layers: int = 3, experts: int = 1) -> diffusers.WanPipeline:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    return diffusers.WanPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=wan_transformer(layers=layers),
        transformer_2=wan_transformer(layers=layers) if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
    )


def wan22() -> diffusers.WanPipeline:
    return wan(experts=2)


def ltx() -> diffusers.LTXPipeline:
    torch.manual_seed(0)
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    ).eval()
    vae = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    return diffusers.LTXPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def flux() -> diffusers.FluxPipeline:
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    ).eval()
    vae = diffusers.AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip_encoder(),
        text_encoder_2=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=letter_tokenizer(),
        transformer=transformer,
        vae=vae,
    )


def cogvideox(*, frames_in_token: int | None = None) -> diffusers.CogVideoXPipeline:
    """CogVideoX, or with two latent frames in a token CogVideoX 1.5."""
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=32,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        patch_size_t=frames_in_token,
        patch_bias=frames_in_token is None,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    ).eval()
    vae = diffusers.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return diffusers.CogVideoXPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def cogvideox15() -> diffusers.CogVideoXPipeline:
    return cogvideox(frames_in_token=2)


def hunyuan_video() -> diffusers.HunyuanVideoPipeline:
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    ).eval()
    blocks = ("HunyuanVideoDownBlock3D",) * 4
    vae = diffusers.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=blocks,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.48,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )
    language = LlamaModel(
        LlamaConfig(
            bos_token_id=0,
            eos_token_id=2,
            hidden_size=16,
            intermediate_size=32,
            num_attention_heads=2,
            num_hidden_layers=2,
            pad_token_id=1,
            vocab_size=64,
        )
    ).eval()
    return diffusers.HunyuanVideoPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=language,
        text_encoder_2=clip_encoder(8),
        tokenizer=letter_tokenizer(end=False),
        tokenizer_2=clip_tokenizer(),
    )


@dataclass(frozen=True, kw_only=True)
class Family:
    """A pipeline, how to call it, and what a run of it consists of."""

    name: str
    build: Callable[[], Any]
    call: dict[str, Any] = field(default_factory=dict)
    layers: int = 0
    forwards: int = 1  # per step
    text: int = 0  # text tokens inside self-attention

    def run(self, pipe: Any, *, steps: int = 4, seed: int = 0, **changes: Any) -> torch.Tensor:
        """The final latents of a run."""
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        arguments = self.call | {"num_inference_steps": steps} | changes
        return pipe(generator=generator, output_type="latent", **arguments)[0]


_TEXT = {"prompt": "a red circle", "max_sequence_length": 16}
_VIDEO = {"height": 64, "width": 64, "num_frames": 9}

FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="wan",
            build=wan,
            layers=3,
            forwards=2,
            call=_TEXT | _VIDEO | {"negative_prompt": "blurry", "guidance_scale": 4.0},
        ),
        Family(
            name="wan22",
            build=wan22,
            layers=3,
            forwards=2,
            call=_TEXT | _VIDEO | {"negative_prompt": "blurry", "guidance_scale": 4.0},
        ),
        Family(
            name="ltx",
            build=ltx,
            layers=2,
            call=_TEXT
            | {
                "height": 64,
                "width": 64,
                "num_frames": 9,
                "negative_prompt": "blurry",
                "guidance_scale": 3.0,
            },
        ),
        Family(
            name="cogvideox",
            build=cogvideox,
            layers=2,
            text=16,
            call=_TEXT | _VIDEO | {"negative_prompt": "blurry", "guidance_scale": 3.0},
        ),
        Family(
            name="cogvideox15",
            build=cogvideox15,
            layers=2,
            text=16,
            call=_TEXT | _VIDEO | {"negative_prompt": "blurry", "guidance_scale": 3.0},
        ),
        Family(
            name="hunyuan_video",
            build=hunyuan_video,
            layers=3,
            text=16,
            call=_TEXT
            | {
                "height": 64,
                "width": 64,
                "num_frames": 9,
                "prompt_template": {"template": "{}", "crop_start": 0},
            },
        ),
        Family(
            name="flux",
            build=flux,
            layers=3,
            text=16,
            call=_TEXT | {"height": 24, "width": 24},
        ),
    )
}
