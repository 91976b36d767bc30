"""UNets: the image attends to itself at several levels, each half as high and wide as the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import Layout, ModelFacts

_SPATIAL = tuple(
    f"{part}.attentions.*.transformer_blocks.*.attn1"
    for part in ("down_blocks.*", "mid_block", "up_blocks.*")
)


def _levels(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """The grids of all levels; a level has half the rows and columns of the one above, rounded up."""
    height, width = inputs["sample"].shape[-2:]
    numbers: list[int] = []
    for _ in model.config.block_out_channels:
        numbers += [1, height, width, 0, 0]
        height, width = (height + 1) // 2, (width + 1) // 2
    return tuple(numbers)


FACTS = (
    ModelFacts(
        model="UNet2DConditionModel",
        attention=_SPATIAL,
        layout=_levels,
        pipelines="Stable Diffusion XL, 2.1 and 1.5",
        grid_rule="unet",
        unpredicted="its layers see the image at several sizes",
        dense="levels that fit into one block",
    ),
    ModelFacts(
        model="UNetMotionModel",
        attention=_SPATIAL,
        layout=_levels,
        pipelines="AnimateDiff",
        grid_rule="unet",
        unpredicted="its layers see every frame at several sizes",
        dense="levels that fit into one block; attention along time",
    ),
)
