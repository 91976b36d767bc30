"""Small random inputs of each architecture, as its config says what a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
Noise = Callable[..., Tensor]
_TEXT, _IMAGE = 7, 5  # tokens
_WAN_TEXT = 512  # its image models take what comes before so many tokens as the picture's


def _wan(config: Mapping[str, Any], noise: Noise) -> Batch:
    time, rows, columns = config["patch_size"]
    joint = config.get("added_kv_proj_dim") is not None
    found: Batch = {
        "hidden_states": noise(1, config["in_channels"], 2 * time, 4 * rows, 4 * columns),
        "encoder_hidden_states": noise(1, _WAN_TEXT if joint else _TEXT, config["text_dim"]),
    }
    if config.get("image_dim") is not None:
        both = config.get("pos_embed_seq_len")  # tokens of a first and a last picture
        places = (2, both // 2) if both else (1, _IMAGE)
        found["encoder_hidden_states_image"] = noise(*places, config["image_dim"])
    return found | ({"fps": [0]} if config.get("inject_sample_info") else {})


def _hunyuan(config: Mapping[str, Any], noise: Noise) -> Batch:
    side, time = config["patch_size"], config["patch_size_t"]
    hidden = noise(1, config["in_channels"], 2 * time, 4 * side, 4 * side)
    found = {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(1, _TEXT, config["text_embed_dim"]),
        "encoder_attention_mask": torch.ones(1, _TEXT, dtype=torch.bool, device=hidden.device),
        "pooled_projections": noise(1, config["pooled_projection_dim"]),
    }
    return found | ({"guidance": noise(1)} if config["guidance_embeds"] else {})


def _cogvideox(config: Mapping[str, Any], noise: Noise) -> Batch:
    side, time = config["patch_size"], config.get("patch_size_t") or 1
    rows, columns = config["sample_height"], config["sample_width"]
    found: Batch = {
        "hidden_states": noise(1, 2 * time, config["in_channels"], rows, columns),
        "encoder_hidden_states": noise(1, config["max_text_seq_length"], config["text_embed_dim"]),
    }
    if config["use_rotary_positional_embeddings"]:
        tokens = 2 * (rows // side) * (columns // side)
        turns = noise(tokens, config["attention_head_dim"])
        found["image_rotary_emb"] = (turns.cos(), turns.sin())
    return found | ({"ofs": noise(1)} if config.get("ofs_embed_dim") else {})


def _ltx(config: Mapping[str, Any], noise: Noise) -> Batch:
    hidden = noise(1, 2 * 4 * 4, config["in_channels"])
    return {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(1, _TEXT, config["caption_channels"]),
        "encoder_attention_mask": torch.ones(1, _TEXT, dtype=torch.bool, device=hidden.device),
        **{"num_frames": 2, "height": 4, "width": 4},
    }


def _flux(config: Mapping[str, Any], noise: Noise) -> Batch:
    hidden = noise(1, 16, config["in_channels"])
    found = {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(1, _TEXT, config["joint_attention_dim"]),
        "timestep": hidden.new_full((1,), 0.5),
        "img_ids": hidden.new_tensor([[0, n // 4, n % 4] for n in range(16)]),
        "txt_ids": hidden.new_zeros(_TEXT, 3),
    }
    if "pooled_projection_dim" in config:  # Chroma has none
        found["pooled_projections"] = noise(1, config["pooled_projection_dim"])
    return found | ({"guidance": noise(1)} if config.get("guidance_embeds") else {})


def _sd3(config: Mapping[str, Any], noise: Noise) -> Batch:
    side = 4 * config["patch_size"]
    return {
        "hidden_states": noise(1, config["in_channels"], side, side),
        "encoder_hidden_states": noise(1, _TEXT, config["joint_attention_dim"]),
        "pooled_projections": noise(1, config["pooled_projection_dim"]),
    }


def _pixart(config: Mapping[str, Any], noise: Noise) -> Batch:
    side = 4 * config["patch_size"]
    sizes = {"resolution": noise(1, 2), "aspect_ratio": noise(1, 1)}
    return {
        "hidden_states": noise(1, config["in_channels"], side, side),
        "encoder_hidden_states": noise(1, _TEXT, config["caption_channels"]),
        "added_cond_kwargs": sizes,
    }


def _unet(config: Mapping[str, Any], noise: Noise) -> Batch:
    side = 2 ** len(config["block_out_channels"])
    text = config.get("encoder_hid_dim") or config["cross_attention_dim"]
    found: Batch = {
        "sample": noise(1, config["in_channels"], side, side),
        "encoder_hidden_states": noise(1, _TEXT, text),
    }
    if config.get("num_class_embeds"):
        found["class_labels"] = found["sample"].new_zeros(1, dtype=torch.long)
    return found | _sizes(config, noise)


def _motion(config: Mapping[str, Any], noise: Noise) -> Batch:
    found = _unet(config, noise)
    found["sample"] = torch.stack([found["sample"], noise(*found["sample"].shape)], dim=2)
    text = found["encoder_hidden_states"]
    return found | {"encoder_hidden_states": torch.cat([text, noise(*text.shape)])}


def _sizes(config: Mapping[str, Any], noise: Noise) -> Batch:
    """What SDXL is told of sizes, and the pooled text."""
    if config.get("addition_embed_type") != "text_time":
        return {}
    width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return {"added_cond_kwargs": {"text_embeds": noise(1, width), "time_ids": noise(1, 6)}}


# By the stock class of a model: all that it takes but the timestep, which most take alike.
INPUTS: dict[str, Callable[[Mapping[str, Any], Noise], Batch]] = {
    "WanTransformer3DModel": _wan,
    "SkyReelsV2Transformer3DModel": _wan,
    "ChronoEditTransformer3DModel": _wan,
    "HunyuanVideoTransformer3DModel": _hunyuan,
    "CogVideoXTransformer3DModel": _cogvideox,
    "LTXVideoTransformer3DModel": _ltx,
    "FluxTransformer2DModel": _flux,
    "ChromaTransformer2DModel": _flux,
    "SD3Transformer2DModel": _sd3,
    "PixArtTransformer2DModel": _pixart,
    "UNet2DConditionModel": _unet,
    "UNetMotionModel": _motion,
}
