"""Facts per architecture: where self-attention is and how the token sequence is laid out."""

from sparsediff.models.facts import REST, Layout, LayoutRule, ModelFacts
from sparsediff.models.finding import (
    denoisers,
    facts_of,
    head_shape,
    refusal,
    self_attention,
    unwrapped,
)
from sparsediff.models.table import FACTS, REFUSED, supported_models

__all__ = [
    "FACTS",
    "REFUSED",
    "REST",
    "Layout",
    "LayoutRule",
    "ModelFacts",
    "denoisers",
    "facts_of",
    "head_shape",
    "refusal",
    "self_attention",
    "supported_models",
    "unwrapped",
]
