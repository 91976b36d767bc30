"""HunyuanVideo: video and text in one sequence, text last, padded text masked in every call."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import video_then_rest, video_then_text

JOINT = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")

FACTS = (
    ModelFacts(
        model="HunyuanVideoTransformer3DModel",
        attention=JOINT,
        layout=video_then_text,
        pipelines="HunyuanVideo",
        grid_rule="hunyuan_video",
        text="last",
        sides=16,
    ),
    ModelFacts(
        model="HunyuanVideo15Transformer3DModel",
        attention=JOINT[:1],
        layout=video_then_rest,
        pipelines="HunyuanVideo 1.5",
        grid_rule="hunyuan_video15",
        text="last",
    ),
)
