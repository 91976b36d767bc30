"""CogVideoX: text and video in one sequence, text first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts
from sparsediff.models.layouts import text_length, video_grid


def _text_then_video(model: Any, inputs: Mapping[str, Any]) -> Layout:
    return *video_grid(model, inputs["hidden_states"], channels_at=-3), text_length(inputs), 0


FACTS = (
    ModelFacts(
        model="CogVideoXTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=_text_then_video,
        pipelines="CogVideoX and CogVideoX 1.5",
        grid_rule="cogvideox",
        text="first",
    ),
)
