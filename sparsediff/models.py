"""Facts per architecture: where self-attention is and how the token sequence is laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError

Layout = tuple[int, int, int, int, int]  # frames, height, width, text before, text after
LayoutRule = Callable[[Any, Mapping[str, Any]], Layout]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What sparsediff has to know of one diffusers model class.

    ``attention``: dotted names of the self-attention modules, with ``*`` for a block number.
    ``layout``: token layout from (model, forward inputs by name); it reads shapes only, so it costs
    nothing on a GPU and can be traced. ``pipelines``: what people call it by.
    """

    model: str
    attention: tuple[str, ...]
    layout: LayoutRule
    pipelines: str


def _patched_video(model: Any, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
    frames, height, width = inputs["hidden_states"].shape[-3:]
    time, rows, columns = model.config.patch_size
    return frames // time, height // rows, width // columns


def _wan(model: Any, inputs: Mapping[str, Any]) -> Layout:
    return *_patched_video(model, inputs), 0, 0


def _hunyuan_video(model: Any, inputs: Mapping[str, Any]) -> Layout:
    frames, height, width = inputs["hidden_states"].shape[-3:]
    side, time = model.config.patch_size, model.config.patch_size_t
    text = inputs["encoder_hidden_states"].shape[1]
    return frames // time, height // side, width // side, 0, text


def _cogvideox(model: Any, inputs: Mapping[str, Any]) -> Layout:
    frames, _, height, width = inputs["hidden_states"].shape[-4:]  # frames before channels
    side, time = model.config.patch_size, model.config.patch_size_t or 1
    text = inputs["encoder_hidden_states"].shape[1]
    return frames // time, height // side, width // side, text, 0


def _ltx(model: Any, inputs: Mapping[str, Any]) -> Layout:
    sizes = [inputs.get(name) for name in ("num_frames", "height", "width")]
    if None in sizes:  # called by hand without its sizes: a flat sequence
        return 1, 1, inputs["hidden_states"].shape[1], 0, 0
    return *sizes, 0, 0  # type: ignore[return-value]


def _flux(model: Any, inputs: Mapping[str, Any]) -> Layout:
    # Height and width are values in img_ids, not shapes, and Kontext appends a second image: one row.
    return 1, 1, inputs["hidden_states"].shape[1], inputs["encoder_hidden_states"].shape[1], 0


_JOINT = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")

FACTS: dict[str, ModelFacts] = {
    facts.model: facts
    for facts in (
        ModelFacts(
            model="WanTransformer3DModel",
            attention=("blocks.*.attn1",),
            layout=_wan,
            pipelines="Wan 2.1 and 2.2, text and image to video",
        ),
        ModelFacts(
            model="WanVACETransformer3DModel",
            attention=("blocks.*.attn1", "vace_blocks.*.attn1"),
            layout=_wan,
            pipelines="Wan VACE",
        ),
        ModelFacts(
            model="HunyuanVideoTransformer3DModel",
            attention=_JOINT,
            layout=_hunyuan_video,
            pipelines="HunyuanVideo",
        ),
        ModelFacts(
            model="CogVideoXTransformer3DModel",
            attention=("transformer_blocks.*.attn1",),
            layout=_cogvideox,
            pipelines="CogVideoX and CogVideoX 1.5",
        ),
        ModelFacts(
            model="LTXVideoTransformer3DModel",
            attention=("transformer_blocks.*.attn1",),
            layout=_ltx,
            pipelines="LTX-Video",
        ),
        ModelFacts(
            model="FluxTransformer2DModel",
            attention=_JOINT,
            layout=_flux,
            pipelines="Flux.1",
        ),
    )
}


def supported_models() -> dict[str, str]:
    """The diffusers model classes that sparse attention reaches, and what people call them."""
    return {facts.model: facts.pipelines for facts in FACTS.values()}


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
    found = {name: model for name, model in models.items() if facts_of(model) is not None}
    if not found:
        names = sorted({type(model).__name__ for model in models.values()}) or ["no model"]
        raise UnsupportedModelError(
            f"Nothing to accelerate: {', '.join(names)} in {type(target).__name__} is not supported. "
            f"Supported models: {', '.join(FACTS)} (sparsediff.supported_models())."
        )
    return found


def self_attention(model: nn.Module, facts: ModelFacts) -> dict[str, nn.Module]:
    """The self-attention modules of a model by dotted name, in the order they are defined.

    Raises UnsupportedModelError when a name pattern of the facts finds nothing or finds modules
    without a processor: the diffusers version then differs from the ones sparsediff knows.
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
    return found
