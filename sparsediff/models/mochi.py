"""Mochi: video and the valid text in one sequence, text last, one call for each row of the batch."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import video_then_rest

FACTS = (
    ModelFacts(
        model="MochiTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=video_then_rest,
        pipelines="Mochi 1",
        grid_rule="mochi",
        text="last",
    ),
)
