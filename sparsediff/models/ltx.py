"""LTX-Video and LTX-2: packed video latents, whose sizes are inputs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import REST, Layout, ModelFacts
from sparsediff.models.layouts import flat_video, sized_by_inputs


def _conditions_then_video(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """Pipelines that condition on frames pass coordinates instead of sizes, or sizes of 1."""
    if inputs.get("video_coords") is not None:
        return flat_video(model, inputs)
    return sized_by_inputs(before=REST)(model, inputs)


FACTS = (
    ModelFacts(
        model="LTXVideoTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=_conditions_then_video,
        positions="video_coords",
        pipelines="LTX-Video: text, image and condition to video",
        grid_rule="ltx",
        sides=32,
        dense="conditioning tokens in front of the video, always computed",
    ),
    ModelFacts(
        model="LTX2VideoTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=sized_by_inputs(after=REST),
        pipelines="LTX-2, 2.3 and 2.5: the video's self-attention",
        grid_rule="ltx2",
        sides=32,
        dense="audio, all attention between audio and video, conditioning tokens after the video, "
        "and masks of strength between conditions (IC-LoRA)",
    ),
)
