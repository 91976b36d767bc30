"""ModelEstimate: what a generation will cost, from the model's configs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.model_configs import CallDefaults, skeletons
from sparsediff.model_files import ModelFiles
from sparsediff.models import ModelFacts, facts_of, head_shape, self_attention
from sparsediff.token_size import Size, TokenSize, beside_grid
from sparsediff.token_weights import token_weights

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_IMAGE_SIDE = 1024
_STEPS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEstimate:
    """Figures of one pipeline at one size; sizes in pixels, memory in GiB.

    ``heads`` of the layer that has most; ``tokens`` length of the self-attention sequence;
    ``token_weights`` of the denoiser that every token is multiplied with; ``steps`` of a run;
    ``attention_share`` part of the denoiser's multiply-adds that self-attention does; ``ideal_speedup``
    what leaving them out at ``density`` would give if all multiply-adds took equally long and no step
    were dense. Memory: weights of all parts, activations of the denoiser without attention matrices
    (rough), what sparse attention adds.
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
    token_weights: int
    steps: int
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
    size: Size | None = None,
    density: float = 0.2,
    block_size: int = 64,
    dtype: str | None = None,
) -> ModelEstimate:
    """Estimate `files` at `size` (width, height, frames), by default the size the model is made for.

    Reads configs, no weights. Raises SparseError when the model is unsupported, its sequence is not
    told by a size, a config is missing or the pipeline cannot make that size.
    """
    name = next(iter(files.denoisers()))
    recipe = GenerationRecipe.of(files)
    parts = skeletons(files)
    if name not in parts:
        raise SparseError(f"{files.name} has no readable {name}/config.json.")
    facts = _predictable(parts[name])
    usual = CallDefaults.of(files, recipe)
    size = size or (
        usual.whole("width", _IMAGE_SIDE),
        usual.whole("height", _IMAGE_SIDE),
        usual.whole(facts.frames_in, 1),
    )
    token = TokenSize.of(parts[name], parts.get("vae"))
    grid = token.grid(size)
    token.check(size, pipeline=usual.pipeline)
    sequence = _Sequence(
        size=size,
        grid=grid,
        text=beside_grid(parts[name], grid, text=usual.whole("max_sequence_length", 0)),
        block_size=block_size,
    )
    steps = usual.whole("num_inference_steps", _STEPS)
    dtype = dtype or recipe.dtype or "bfloat16"
    return _figures(files, parts, sequence, facts, steps=steps, density=density, dtype=dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sequence:
    """The tokens of one self-attention call."""

    size: Size
    grid: tuple[int, int, int]
    text: int
    block_size: int

    @property
    def tokens(self) -> int:
        return math.prod(self.grid) + self.text

    @property
    def blocks(self) -> int:
        return block_count(self.tokens, self.block_size)


def _predictable(model: nn.Module) -> ModelFacts:
    facts = facts_of(model)
    if facts is None:
        raise UnsupportedModelError(f"{type(model).__name__} is not supported.")
    if facts.unpredicted:
        raise SparseError(
            f"There is no estimate for {facts.model}: {facts.unpredicted}. Measure it: sparsediff "
            f"generate --compare runs it dense and sparse."
        )
    return facts


def _figures(
    files: ModelFiles,
    parts: Mapping[str, nn.Module],
    sequence: _Sequence,
    facts: ModelFacts,
    *,
    steps: int,
    density: float,
    dtype: str,
) -> ModelEstimate:
    chosen = files.denoisers()
    model = parts[next(iter(chosen))]
    layers = [head_shape(module) for module in self_attention(model, facts).values()]
    heads, head_dim = max(layers)  # a pruned model has fewer in some layers
    inner = heads * head_dim
    tokens, blocks = sequence.tokens, sequence.blocks
    weights = token_weights(model, facts)
    attended = (
        2 * tokens * sum(n * dim for n, dim in layers)
    )  # multiply-adds of q k^T and p v for a token
    share = attended / (attended + weights)
    parameters = {part: _size(module) for part, module in parts.items()}
    width, height, frames = sequence.size
    return ModelEstimate(
        pipeline=str(files.index().get("_class_name")),
        denoisers=chosen,
        width=width,
        height=height,
        frames=frames,
        tokens=tokens,
        grid=sequence.grid,
        text_tokens=sequence.text,
        layers=len(layers),
        heads=heads,
        head_dim=head_dim,
        blocks=blocks,
        token_weights=weights,
        steps=steps,
        attention_share=share,
        density=density,
        ideal_speedup=1 / (1 - share * (1 - density)),
        dtype=dtype,
        parameters=parameters,
        weights_gib=sum(parameters.values()) * _BYTES[dtype] / 2**30,
        activations_gib=_activations(model, tokens, inner) * _BYTES[dtype] / 2**30,
        sparse_gib=_kept_bytes(model, sum(n for n, _ in layers), sequence, density) / 2**30,
    )


def _kept_bytes(model: Any, heads: int, sequence: _Sequence, density: float) -> float:
    """What all `heads` keep: a float32 LSE per row and the block numbers of every row of blocks."""
    branches = 1 if model.config.get("guidance_embeds") else 2  # with and without the prompt
    return branches * heads * (4 * sequence.tokens + 4 * sequence.blocks**2 * density)


def _activations(model: nn.Module, tokens: int, inner: int) -> int:
    """Numbers alive in the widest moment of a block: residual, norm, q, k, v, out, feed-forward."""
    linear = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    return tokens * (6 * inner + 2 * max([inner, *linear]))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
