"""Kandinsky 5: video only in self-attention, of latents with channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts
from sparsediff.models.layouts import patch


def _channels_last(model: Any, inputs: Mapping[str, Any]) -> Layout:
    sides = zip(inputs["hidden_states"].shape[1:4], patch(model), strict=True)
    frames, height, width = (length // side for length, side in sides)
    return frames, height, width, 0, 0


FACTS = (
    ModelFacts(
        model="Kandinsky5Transformer3DModel",
        attention=("visual_transformer_blocks.*.self_attention",),
        layout=_channels_last,
        pipelines="Kandinsky 5, videos and images",
        grid_rule="kandinsky5",
        sides=16,
        dense="models with a sparse attention of their own (NABLA), which keep it",
    ),
)
