"""Which linear layers get 2:4 masks."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.semi_structured.candidates import GROUP
from sparsediff.prune.structures import structures_of


def masked_layers(model: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, nn.Linear]:
    """The linear layers of a model whose path matches a pattern, by path, in the model's order.

    In a pattern ``*`` stands for anything, dots too: ``blocks.1*.ffn.*``. None means the feed-forward
    layers of the model's structure table; patterns work for any model.

    Raises SparseError where nothing matches or 4 does not divide a layer's inputs,
    UnsupportedModelError for quantised or LoRA layers and, without patterns, unknown architectures.
    """
    linear = {path: one for path, one in model.named_modules() if isinstance(one, nn.Linear)}
    if patterns is None:
        ffn = {cut.module for one in structures_of(model, ["ffn"]) for cut in one.cuts}
        found = {path: layer for path, layer in linear.items() if path in ffn}
    else:
        found = {
            path: layer
            for path, layer in linear.items()
            if any(fnmatchcase(path, pattern) for pattern in patterns)
        }
    if not found:
        some = ", ".join([*linear][:3]) or "none"
        raise SparseError(
            f"No linear layer of {type(model).__name__} matches {patterns}; its linear layers are "
            f"{some}{', ...' if len(linear) > 3 else ''}."
        )
    for path, layer in found.items():
        check_plain(path, layer)
    return found


def check_plain(path: str, layer: Any) -> None:
    """Raises UnsupportedModelError or SparseError for a layer whose weights cannot be masked."""
    weight = getattr(layer, "weight", None)
    if type(layer) is not nn.Linear or type(weight) is not nn.Parameter or weight.is_meta:
        raise UnsupportedModelError(
            f"{path} is {type(layer).__name__} over {type(weight).__name__}"
            f"{', not loaded' if getattr(weight, 'is_meta', False) else ''}; only plain "
            f"torch.nn.Linear layers get 2:4 masks. Do it before adding LoRA (or fuse it), before "
            f"quantising and without offloading."
        )
    if layer.in_features % GROUP:
        raise SparseError(
            f"{path} has {layer.in_features} inputs, which 4 does not divide. Leave it out of the "
            f"patterns."
        )
