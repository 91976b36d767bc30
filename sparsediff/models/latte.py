"""Latte: attention within a frame and attention along time take turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts
from sparsediff.models.layouts import image_grid


def _one_frame(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """Every frame is a row of the batch."""
    return *image_grid(model, inputs["hidden_states"]), 0, 0


FACTS = (
    ModelFacts(
        model="LatteTransformer3DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=_one_frame,
        pipelines="Latte",
        grid_rule="latte",
        unpredicted="attention is within a frame and along time in turns",
        dense="attention along time, over as few tokens as there are frames",
    ),
)
