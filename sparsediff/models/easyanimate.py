"""EasyAnimate: text and video in one sequence, text first; several text encoders may share it."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import rest_then_video

FACTS = (
    ModelFacts(
        model="EasyAnimateTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=rest_then_video,
        pipelines="EasyAnimate 5.1: text, inpainting and control to video",
        grid_rule="easyanimate",
        text="first",
        more_text=256,  # what its pipelines pad a prompt to, which is no argument
        sides=16,
    ),
)
