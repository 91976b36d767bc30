"""Flux and its kin: text first, then packed image latents whose height and width are coordinates."""

from __future__ import annotations

from sparsediff.models.facts import ModelFacts
from sparsediff.models.layouts import JOINT, text_then_flat_image

FACTS = (
    ModelFacts(
        model="FluxTransformer2DModel",
        attention=JOINT,
        layout=text_then_flat_image,
        positions="img_ids",
        pipelines="Flux.1 and Flux.1 Kontext",
        grid_rule="flux",
        text="first",
        packed=2,
        dense="Kontext's reference images, always computed",
    ),
    ModelFacts(
        model="Flux2Transformer2DModel",
        attention=JOINT,
        layout=text_then_flat_image,
        positions="img_ids",
        pipelines="Flux.2",
        grid_rule="flux",
        text="first",
        packed=2,
        dense="reference images, always computed; Klein KV with reference images",
    ),
    ModelFacts(
        model="ChromaTransformer2DModel",
        attention=JOINT,
        layout=text_then_flat_image,
        positions="img_ids",
        pipelines="Chroma",
        grid_rule="flux",
        text="first",
        packed=2,
    ),
)
