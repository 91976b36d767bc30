"""The published architectures with narrow layers, so that a CPU runs them in a moment."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from sparsediff.transformer_bench.architectures import ARCHITECTURES, Architecture
from sparsediff.transformer_bench.measurement import TransformerCase

TEXT = 16
_NARROW: dict[str, dict[str, Any]] = {
    "wan2.1-14b": {"attention_head_dim": 12, "ffn_dim": 32, "text_dim": 32, "freq_dim": 32},
    "hunyuanvideo": {
        "attention_head_dim": 16,
        "rope_axes_dim": (4, 6, 6),
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
    },
    "cogvideox1.5-5b": {"attention_head_dim": 16, "text_embed_dim": 16, "time_embed_dim": 8},
    "flux": {
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
        "joint_attention_dim": 16,
        "pooled_projection_dim": 8,
    },
}


def narrow(name: str) -> Architecture:
    known = ARCHITECTURES[name]
    config = {**known.config, "num_attention_heads": 2, **_NARROW[name]}
    return dataclasses.replace(known, config=config, text=TEXT)


def small_case(architecture: Architecture, **changes: Any) -> TransformerCase:
    """A case that takes a moment on a CPU: a block of each kind, 128 x 128 pixels."""
    usual = {
        "layers": 1,
        "block_size": 16,
        "repeat": 2,
        "device": "cpu",
        "dtype": torch.float32,
        "size": (128, 128, 9 if architecture.frames_in_latent else 1),
    }
    return TransformerCase(architecture=architecture, **{**usual, **changes})
