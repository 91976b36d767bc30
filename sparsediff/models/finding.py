"""Finding the supported models of a pipeline, and the self-attention modules inside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.models.facts import ModelFacts
from sparsediff.models.table import FACTS, REFUSED


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind torch.compile's wrapper, if there is one."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def facts_of(model: nn.Module) -> ModelFacts | None:
    """The facts of a model by its class or a parent class; None when it is not supported."""
    for cls in type(model).__mro__:
        if cls.__name__ in FACTS:
            return FACTS[cls.__name__]
    return None


def denoisers(target: Any) -> dict[str, nn.Module]:
    """The supported denoising models of a pipeline, or the model itself, by name.

    Raises UnsupportedModelError when there is none and SparseError when `target` is neither.
    """
    if isinstance(target, nn.Module):
        components: Mapping[str, Any] = {"": target}
    else:
        components = getattr(target, "components", None) or {}
        if not isinstance(components, Mapping) or not components:
            raise SparseError(
                f"enable_sparse_attention needs a diffusers pipeline or model; found "
                f"{type(target).__name__}."
            )
    models = {
        name: unwrapped(part) for name, part in components.items() if isinstance(part, nn.Module)
    }
    models = {path: part for name, model in models.items() for path, part in _inside(name, model)}
    found = {name: model for name, model in models.items() if facts_of(model) is not None}
    if not found:
        names = sorted({type(model).__name__ for model in models.values()}) or ["no model"]
        where = "" if isinstance(target, nn.Module) else f" in {type(target).__name__}"
        raise UnsupportedModelError(
            f"Nothing to accelerate: {', '.join(names)}{where} is not supported. {refusal(names)}"
        )
    return found


def _inside(name: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The denoising models that a module switches between, as one of several buckets does."""
    several = getattr(type(model), "denoisers", None)
    if several is None:
        yield name, model
        return
    inside: Mapping[str, nn.Module] = model.denoisers  # type: ignore[assignment]
    for path, part in inside.items():
        yield f"{name}.{path}" if name else path, part


def refusal(names: Iterable[str]) -> str:
    """Why model classes are refused, where that is known, and which are supported."""
    reasons = "".join(f"{name}: {REFUSED[name]}. " for name in names if name in REFUSED)
    return f"{reasons}Supported models: {', '.join(FACTS)} (sparsediff.supported_models())."


def head_shape(module: Any) -> tuple[int, int]:
    """Heads of a self-attention module, and their dimension."""
    heads = int(module.heads if hasattr(module, "heads") else module.num_heads)
    has_width = hasattr(module, "inner_dim")  # Kandinsky's says it by its weights only
    return heads, int(module.inner_dim if has_width else module.to_query.out_features) // heads


def self_attention(model: nn.Module, facts: ModelFacts) -> dict[str, nn.Module]:
    """The self-attention modules of a model by dotted name, in the order they are defined.

    Those that pruning has left without heads are passed over. Raises UnsupportedModelError when a name
    pattern of the facts finds nothing or finds modules without a processor: the diffusers version then
    differs from the ones sparsediff knows. Also when no head is left at all.
    """
    found: dict[str, nn.Module] = {}
    patterns = [pattern.split(".") for pattern in facts.attention]
    for name, module in model.named_modules():
        parts = name.split(".")
        if any(
            len(parts) == len(pattern)
            and all(want in ("*", part) for part, want in zip(parts, pattern, strict=True))
            for pattern in patterns
        ):
            found[name] = module
    if not found or not all(hasattr(module, "processor") for module in found.values()):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no attention processors under "
            f"{' or '.join(facts.attention)}; this version of diffusers is laid out differently "
            f"from the ones sparsediff was tested with."
        )
    working = {name: module for name, module in found.items() if getattr(module, "heads", 1)}
    if not working:
        raise UnsupportedModelError(
            f"{type(model).__name__} has lost the heads of all its self-attention to pruning: there is "
            f"nothing left to make sparse."
        )
    return working
