"""Cosmos: video only in self-attention, text in cross-attention."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import video_alone

FACTS = (
    ModelFacts(
        model="CosmosTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=video_alone,
        pipelines="Cosmos 1, 2 and 2.5, of text, images and videos",
        grid_rule="cosmos",
        sides=16,
    ),
)
