"""Qwen-Image: text first, then packed pictures whose sizes are an input of the model."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts
from sparsediff.models.layouts import text_length, text_then_flat_image


def _text_then_pictures(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """``[text | picture | pictures to edit]``; the layers of a layered model are frames."""
    shapes = inputs.get("img_shapes")
    if not shapes:  # called by hand: a flat sequence
        return text_then_flat_image(model, inputs)
    pictures = shapes[0] if isinstance(shapes[0], list) else [shapes[0]]
    frames, height, width = pictures[0]
    layers = len(pictures) - 1 if model.config.get("use_layer3d_rope") else 1
    if layers > 1 and all(tuple(picture) == (1, height, width) for picture in pictures[:layers]):
        frames = layers
    others = sum(prod(picture) for picture in pictures) - frames * height * width
    return frames, height, width, text_length(inputs), others


FACTS = (
    ModelFacts(
        model="QwenImageTransformer2DModel",
        attention=("transformer_blocks.*.attn",),
        layout=_text_then_pictures,
        pipelines="Qwen-Image, Edit, Edit Plus and Layered",
        grid_rule="qwen_image",
        text="first",
        dense="pictures to edit, always computed",
    ),
)
