"""Layers that can be cut: plain linear ones, RMS norms with a weight, attention that is not fused."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsediff.kernels.errors import UnsupportedModelError


def check_linear(model: nn.Module, path: str) -> None:
    """UnsupportedModelError unless a layer is torch's own, over a weight of its own."""
    layer = model.get_submodule(path)
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        weight = type(getattr(layer, "weight", None)).__name__
        raise UnsupportedModelError(
            f"{path} is {type(layer).__name__} over {weight}; only plain torch.nn.Linear layers can "
            f"be cut. Prune before adding LoRA (or fuse it) and before quantising."
        )


def check_norm(model: nn.Module, path: str) -> None:
    """UnsupportedModelError unless a norm over all heads can take the changed mean into its weight."""
    layer: Any = model.get_submodule(path)
    if not type(layer).__name__.endswith("RMSNorm") or layer.weight is None:
        raise UnsupportedModelError(
            f"{path} is {type(layer).__name__} {'with' if layer.weight is not None else 'without'} a "
            f"weight; heads can be cut only behind an RMS norm with a weight, or none."
        )


def check_attention(model: nn.Module, path: str) -> None:
    """UnsupportedModelError for fused projections and for processors with weights of their own."""
    attention: Any = model.get_submodule(path)
    name = type(attention.processor).__name__
    # Attention of older diffusers models keeps the flag after unfusing; its processor tells.
    unfuses = hasattr(attention, "unfuse_projections")
    if getattr(attention, "fused_projections", False) and (unfuses or name.startswith("Fused")):
        raise UnsupportedModelError(
            f"{path} has fused projections. Call model.unfuse_qkv_projections() first."
        )
    processor = attention.processor
    if isinstance(processor, nn.Module) and next(processor.parameters(), None) is not None:
        raise UnsupportedModelError(
            f"{path} has a {name} with weights of its own, which no table knows. Unload the IP-Adapter "
            f"first."
        )
