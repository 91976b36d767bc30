"""Wan and the models built like it: video only in self-attention, text in cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts
from sparsediff.models.layouts import video_alone, video_grid

_BLOCKS = ("blocks.*.attn1",)


def _reference_frame_first(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """Wan Animate puts the reference picture in front as a frame of its own: it stays dense."""
    frames, height, width = video_grid(model, inputs["hidden_states"])
    return frames - 1, height, width, height * width, 0


FACTS = (
    ModelFacts(
        model="WanTransformer3DModel",
        attention=_BLOCKS,
        layout=video_alone,
        pipelines="Wan 2.1 and 2.2, text and image to video",
        grid_rule="wan",
        sides=16,
    ),
    ModelFacts(
        model="WanVACETransformer3DModel",
        attention=(*_BLOCKS, "vace_blocks.*.attn1"),
        layout=video_alone,
        pipelines="Wan VACE",
        grid_rule="wan",
        sides=16,
    ),
    ModelFacts(
        model="WanAnimateTransformer3DModel",
        attention=_BLOCKS,
        layout=_reference_frame_first,
        pipelines="Wan 2.2 Animate",
        grid_rule="wan-animate",
        sides=16,
        beside=lambda grid: grid[1] * grid[2],
        frames_in="segment_frame_length",
        dense="the reference picture's tokens, always computed",
    ),
    ModelFacts(
        model="ChronoEditTransformer3DModel",
        attention=_BLOCKS,
        layout=video_alone,
        pipelines="ChronoEdit",
        grid_rule="wan",
        sides=16,
    ),
    ModelFacts(
        model="SkyReelsV2Transformer3DModel",
        attention=_BLOCKS,
        layout=video_alone,
        pipelines="SkyReels V2",
        grid_rule="wan",
        sides=16,
        dense="diffusion forcing with causal blocks, whose mask depends on the query",
    ),
)
