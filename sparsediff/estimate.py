"""ModelEstimate: what a generation will cost, from the model's configs alone."""

from __future__ import annotations

import importlib
import inspect
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles
from sparsediff.models import facts_of, self_attention

# Text tokens that share self-attention with the picture; the other families keep text apart.
_TEXT_TOKENS = {"HunyuanVideoTransformer3DModel": 256, "FluxTransformer2DModel": 512}
_PACKED = {"FluxTransformer2DModel": 2}  # pixels of a latent token side that the pipeline packs
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_IMAGE_SIDE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEstimate:
    """Figures of one pipeline at one size; sizes in pixels, memory in GiB.

    ``tokens`` length of the self-attention sequence; ``attention_share`` part of the denoiser's
    multiply-adds that self-attention does; ``ideal_speedup`` what leaving them out at ``density`` would
    give if all multiply-adds took equally long and no step were dense. Memory: weights of all
    parts, activations of the denoiser without attention matrices (rough), what sparse attention adds.
    """

    pipeline: str
    denoisers: dict[str, str]
    width: int
    height: int
    frames: int
    tokens: int
    grid: tuple[int, int, int]
    text_tokens: int
    layers: int
    heads: int
    head_dim: int
    blocks: int
    attention_share: float
    density: float
    ideal_speedup: float
    dtype: str
    parameters: dict[str, int]
    weights_gib: float
    activations_gib: float
    sparse_gib: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)


def estimate(
    files: ModelFiles,
    *,
    size: tuple[int, int, int] | None = None,
    density: float = 0.2,
    block_size: int = 64,
    dtype: str | None = None,
) -> ModelEstimate:
    """Estimate `files` at `size` (width, height, frames), by default the size the model is made for.

    Reads configs, no weights. Raises SparseError when the model is unsupported, a config is missing or
    the size is too small for one token.
    """
    recipe = GenerationRecipe.of(files)
    chosen = files.denoisers()
    name = next(iter(chosen))
    skeletons = _skeletons(files)
    if name not in skeletons:
        raise SparseError(f"{files.name} has no readable {name}/config.json.")
    model: Any = skeletons[name]
    width, height, frames = size or _usual_size(files, recipe)
    grid = _grid(model, skeletons.get("vae"), (width, height, frames))
    text = _text_tokens(model, recipe)
    tokens = math.prod(grid) + text
    layers, heads, inner = _attention(model)
    share = _attention_share(model, tokens, layers * inner)
    blocks = block_count(tokens, block_size)
    parameters = {part: _size(module) for part, module in skeletons.items()}
    dtype = dtype or recipe.dtype or "bfloat16"
    # Per layer and branch: a float32 log-sum-exp per row and a list of block numbers per row of blocks.
    branches = 1 if model.config.get("guidance_embeds") else 2  # with and without the prompt
    kept = branches * layers * heads * (4 * tokens + 4 * blocks * blocks * density)
    return ModelEstimate(
        pipeline=str(files.index().get("_class_name")),
        denoisers=chosen,
        width=width,
        height=height,
        frames=frames,
        tokens=tokens,
        grid=grid,
        text_tokens=text,
        layers=layers,
        heads=heads,
        head_dim=inner // heads,
        blocks=blocks,
        attention_share=share,
        density=density,
        ideal_speedup=1 / (1 - share * (1 - density)),
        dtype=dtype,
        parameters=parameters,
        weights_gib=sum(parameters.values()) * _BYTES[dtype] / 2**30,
        activations_gib=_activations(model, tokens, inner) * _BYTES[dtype] / 2**30,
        sparse_gib=kept / 2**30,
    )


def _text_tokens(model: nn.Module, recipe: GenerationRecipe) -> int:
    """Text tokens inside self-attention; the recipe's length, where the family has any."""
    usual = _TEXT_TOKENS.get(type(model).__name__, 0)
    return int(recipe.call.get("max_sequence_length", usual)) if usual else 0


def _attention(model: nn.Module) -> tuple[int, int, int]:
    """Self-attention layers, heads of one, and the width of all heads together."""
    facts = facts_of(model)
    layers: list[Any] = list(self_attention(model, facts).values()) if facts else []
    return len(layers), int(layers[0].heads), int(layers[0].to_q.out_features)


def _skeletons(files: ModelFiles) -> dict[str, nn.Module]:
    """The parts of a pipeline as modules without storage, built from their configs."""
    found = {}
    for name, entry in files.index().items():
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            continue
        cls = getattr(importlib.import_module(entry[0]), entry[1], None)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            continue
        config = files.read(f"{name}/config.json", required=False)
        if config is None:
            continue
        with torch.device("meta"):
            if hasattr(cls, "from_config"):  # diffusers
                found[name] = cls.from_config(config)
            else:  # transformers
                found[name] = cls(cls.config_class.from_dict(config))  # type: ignore[attr-defined]
    return found


def _usual_size(files: ModelFiles, recipe: GenerationRecipe) -> tuple[int, int, int]:
    """Width, height and frames of the recipe, else the defaults of the pipeline class."""
    import diffusers

    cls = getattr(diffusers, str(files.index().get("_class_name")), None)
    signature = inspect.signature(cls.__call__).parameters if cls else {}

    def usual(name: str, otherwise: int) -> int:
        default = signature[name].default if name in signature else None
        return int(recipe.call.get(name) or default or otherwise)

    return usual("width", _IMAGE_SIDE), usual("height", _IMAGE_SIDE), usual("num_frames", 1)


def _grid(model: Any, vae: Any, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Tokens along time, height and width of a video of `size`."""
    width, height, frames = size
    config = vae.config if vae is not None else {}
    spatial = config.get("scale_factor_spatial") or getattr(vae, "spatial_compression_ratio", 0)
    temporal = config.get("scale_factor_temporal") or getattr(vae, "temporal_compression_ratio", 0)
    if not spatial:
        spatial = 2 ** (len(config.get("block_out_channels", ())) - 1) if config else 8
    patch = model.config.get("patch_size", 1)
    time, rows, columns = (
        patch
        if isinstance(patch, list | tuple)
        else (model.config.get("patch_size_t", 1) or 1, patch, patch)
    )
    packed = _PACKED.get(type(model).__name__, 1)
    latent_frames = (frames - 1) // (temporal or 1) + 1
    grid = (
        latent_frames // time,
        height // (spatial * rows * packed),
        width // (spatial * columns * packed),
    )
    if min(grid) < 1:
        raise SparseError(
            f"{width}x{height}x{frames} leaves no token: one covers {spatial * columns * packed} x "
            f"{spatial * rows * packed} pixels and {time} latent frame(s). Give a larger --size."
        )
    return grid


def _attention_share(model: nn.Module, tokens: int, widths: int) -> float:
    """Multiply-adds of q k^T and p v among all; the rest is one per weight and token."""
    attention = 2 * tokens * tokens * widths
    return attention / (attention + tokens * _size(model))


def _activations(model: nn.Module, tokens: int, inner: int) -> int:
    """Numbers alive in the widest moment of a block: residual, norm, q, k, v, out, feed-forward."""
    linear = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    return tokens * (6 * inner + 2 * max([inner, *linear]))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def parse_size(text: str) -> tuple[int, int, int]:
    """Width, height, frames from "832x480x81" or "1024x1024"; raises SparseError for anything else."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise SparseError(
            f"size {text!r}: needs WIDTHxHEIGHTxFRAMES in pixels, such as 832x480x81."
        )
    width, height, frames = (*map(int, parts), 1)[:3]
    return width, height, frames
