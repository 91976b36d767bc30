"""The one table of supported models, and the ones that are refused for a reason."""

from __future__ import annotations

from sparsediff.models import (
    allegro,
    cogvideox,
    cosmos,
    easyanimate,
    flux,
    hunyuan,
    image,
    kandinsky5,
    latte,
    ltx,
    mochi,
    qwen_image,
    unet,
    wan,
)
from sparsediff.models.facts import ModelFacts

_FAMILIES = (
    wan,
    hunyuan,
    cogvideox,
    ltx,
    mochi,
    cosmos,
    allegro,
    easyanimate,
    kandinsky5,
    latte,
    flux,
    qwen_image,
    image,
    unet,
)

FACTS: dict[str, ModelFacts] = {
    facts.model: facts for family in _FAMILIES for facts in family.FACTS
}

_LINEAR = "its attention is linear in the number of tokens, so there are no blocks to leave out"
_SHORT = (
    "its sequences have about a thousand tokens or fewer: leaving blocks out would gain nothing"
)
_MORE_KEYS = (
    "its self-attention has the text's keys besides its own, which block patterns do not cover"
)

# Models that people may expect here, and why they are refused.
REFUSED: dict[str, str] = {
    "SanaTransformer2DModel": _LINEAR,
    "SanaVideoTransformer3DModel": _LINEAR,
    "DiTTransformer2DModel": _SHORT,
    "PriorTransformer": _SHORT,
    "StableAudioDiTModel": _SHORT,
    "StableCascadeUNet": _MORE_KEYS,
}


def supported_models() -> dict[str, str]:
    """The diffusers model classes that sparse attention reaches, and what people call them."""
    return {facts.model: facts.pipelines for facts in FACTS.values()}
