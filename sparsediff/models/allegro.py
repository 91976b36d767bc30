"""Allegro: video only in self-attention, text in cross-attention."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import video_alone

FACTS = (
    ModelFacts(
        model="AllegroTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=video_alone,
        pipelines="Allegro",
        grid_rule="allegro",
        whole_frames=True,
    ),
)
