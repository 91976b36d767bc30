"""Image transformers that take latents as they are: the grid is the latents' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.models.facts import REST, Layout, ModelFacts
from sparsediff.models.layouts import either, image_alone, image_grid, text_length


def _image_then_text(model: Any, inputs: Mapping[str, Any]) -> Layout:
    return *image_grid(model, inputs["hidden_states"]), 0, text_length(inputs)


def _image_then_rest(model: Any, inputs: Mapping[str, Any]) -> Layout:
    """``[image | text of three encoders]``; an image that is no square has padding behind it."""
    latents = inputs["hidden_states"]
    if latents.ndim == 3:  # patched by the caller: a flat sequence
        return 1, 1, latents.shape[1], 0, REST
    return *image_grid(model, latents), 0, REST


def _rest_then_image(model: Any, inputs: Mapping[str, Any]) -> Layout:
    return *image_grid(model, inputs["hidden_states"]), REST, 0


FACTS = (
    ModelFacts(
        model="SD3Transformer2DModel",
        attention=("transformer_blocks.*.attn", "transformer_blocks.*.attn2"),
        layout=either(image_alone, _image_then_text),
        pipelines="Stable Diffusion 3 and 3.5",
        grid_rule="sd3",
        text="last",
        more_text=77,  # of CLIP
    ),
    ModelFacts(
        model="HiDreamImageTransformer2DModel",
        attention=("double_stream_blocks.*.block.attn1", "single_stream_blocks.*.block.attn1"),
        layout=_image_then_rest,
        pipelines="HiDream-I1",
        grid_rule="hidream",
        text="last",
        texts=3,  # of T5 and, twice, of Llama
        dense="the padding of images that are no squares, always computed",
        graphs="its experts loop over token counts that only the device knows",
    ),
    ModelFacts(
        model="Lumina2Transformer2DModel",
        attention=("noise_refiner.*.attn", "layers.*.attn"),
        layout=either(image_alone, _rest_then_image),
        pipelines="Lumina-Image 2.0",
        grid_rule="lumina2",
        text="first",
    ),
    ModelFacts(
        model="AuraFlowTransformer2DModel",
        attention=("joint_transformer_blocks.*.attn", "single_transformer_blocks.*.attn"),
        layout=_rest_then_image,
        pipelines="AuraFlow",
        grid_rule="auraflow",
        text="first",
        more_text=8,  # registers
    ),
    ModelFacts(
        model="CogView4Transformer2DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=_rest_then_image,
        pipelines="CogView4",
        grid_rule="cogview4",
        text="first",
    ),
    ModelFacts(
        model="PixArtTransformer2DModel",
        attention=("transformer_blocks.*.attn1",),
        layout=image_alone,
        pipelines="PixArt-alpha and PixArt-Sigma",
        grid_rule="pixart",
    ),
)
