"""Layout rules that several model families share; shapes only, nothing is read from a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import REST, Layout, LayoutRule

Inputs = Mapping[str, Any]

# Where text and video share self-attention: blocks with a stream for each, then blocks with one.
JOINT = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")


def patch(model: Any) -> tuple[int, int, int]:
    """Latent frames, rows and columns that the model takes as one token, from its config."""
    side = model.config.get("patch_size") or 1
    if isinstance(side, list | tuple):
        time, rows, columns = side if len(side) == 3 else (1, *side)
        return time, rows, columns
    return model.config.get("patch_size_t") or 1, side, side


def video_grid(model: Any, latents: Any, *, channels_at: int = -4) -> tuple[int, int, int]:
    """Tokens along frames, height and width of latents ``[b, c, f, h, w]``.

    `channels_at` = -3 for latents with frames before channels.
    """
    frames, height, width = latents.shape[-3:]
    if channels_at == -3:
        frames = latents.shape[-4]
    time, rows, columns = patch(model)
    return frames // time, height // rows, width // columns


def image_grid(model: Any, latents: Any) -> tuple[int, int, int]:
    """One frame of tokens from latents ``[b, c, h, w]``."""
    _, rows, columns = patch(model)
    return 1, latents.shape[-2] // rows, latents.shape[-1] // columns


def text_length(inputs: Inputs, name: str = "encoder_hidden_states") -> int:
    """Length of the text that shares self-attention with the video."""
    return int(inputs[name].shape[1])


def video_alone(model: Any, inputs: Inputs) -> Layout:
    """Video only; the text is attended to separately."""
    return *video_grid(model, inputs["hidden_states"]), 0, 0


def image_alone(model: Any, inputs: Inputs) -> Layout:
    """One image only; the text is attended to separately."""
    return *image_grid(model, inputs["hidden_states"]), 0, 0


def video_then_text(model: Any, inputs: Inputs) -> Layout:
    """``[video | text]``."""
    return *video_grid(model, inputs["hidden_states"]), 0, text_length(inputs)


def video_then_rest(model: Any, inputs: Inputs) -> Layout:
    """``[video | text]`` where the number of text tokens is decided inside the model."""
    return *video_grid(model, inputs["hidden_states"]), 0, REST


def rest_then_video(model: Any, inputs: Inputs) -> Layout:
    """``[text | video]`` where the number of text tokens is decided inside the model."""
    return *video_grid(model, inputs["hidden_states"]), REST, 0


def text_then_flat_image(model: Any, inputs: Inputs) -> Layout:
    """``[text | image]`` of packed latents: one row, until the positions tell height and width."""
    return 1, 1, inputs["hidden_states"].shape[1], text_length(inputs), 0


def flat_video(model: Any, inputs: Inputs) -> Layout:
    """Packed video latents: one row, until somebody tells its frames, height and width."""
    return 1, 1, inputs["hidden_states"].shape[1], 0, 0


def sized_by_inputs(*, before: int = 0, after: int = 0) -> LayoutRule:
    """Packed video whose frames, height and width are inputs, with tokens `before` and `after`."""

    def layout(model: Any, inputs: Inputs) -> Layout:
        frames, height, width = (inputs.get(name) for name in ("num_frames", "height", "width"))
        if frames is None or height is None or width is None:  # called by hand
            return flat_video(model, inputs)
        return frames, height, width, before, after

    return layout


def either(*rules: LayoutRule) -> LayoutRule:
    """A model whose layers see different sequences: the grids of all `rules`, in order."""

    def layout(model: Any, inputs: Inputs) -> Layout:
        return tuple(number for rule in rules for number in rule(model, inputs))

    return layout
