"""HunyuanVideo: video and text in one sequence, text last, padded text masked in every call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import REST, Layout, ModelFacts
from sparsediff.models.layouts import JOINT, video_grid, video_then_rest, video_then_text

# FramePack's patches of the past, finest last; what does not fill one is padded.
_HISTORY = {
    "latents_clean": (1, 2, 2),
    "latents_history_2x": (2, 4, 4),
    "latents_history_4x": (4, 8, 8),
}


def _history_then_video(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """``[history | section of video | picture and text]``; padded text is cut off inside the model."""
    history = 0
    for name, patch in _HISTORY.items():
        latents = inputs.get(name)
        if latents is not None:
            sides = zip(latents.shape[-3:], patch, strict=True)
            history += math.prod(-(-length // side) for length, side in sides)
    return *video_grid(model, inputs["hidden_states"]), history, REST


FACTS = (
    ModelFacts(
        model="HunyuanVideoTransformer3DModel",
        attention=JOINT,
        layout=video_then_text,
        pipelines="HunyuanVideo, text and image to video",
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
        more_text=729 + 256 + 1000,  # picture, glyphs and prompt as its pipelines pad them
    ),
    ModelFacts(
        model="HunyuanVideoFramepackTransformer3DModel",
        attention=JOINT,
        layout=_history_then_video,
        pipelines="HunyuanVideo FramePack",
        grid_rule="hunyuan_framepack",
        text="last",
        sides=16,
        dense="the history in front of a section, always computed",
        unpredicted="it makes a video section by section, each behind a history of the ones before",
    ),
)
