"""LTX-Video: packed video latents, whose sizes are inputs of the model."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import sized_by_inputs

FACTS = (
    ModelFacts(
        model="LTXVideoTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=sized_by_inputs,
        pipelines="LTX-Video",
        grid_rule="ltx",
        sides=32,
        dense="conditioning tokens in front of the video, always computed",
    ),
)
