"""Loading a pipeline for a run: dtype, device, quiet libraries, errors in one sentence."""

from __future__ import annotations

from typing import Any

from sparsediff.environment import cpu_features, default_device
from sparsediff.generation import DTYPES, GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles


def load_pipeline(files: ModelFiles, *, dtype: str, device: str) -> Any:
    """The diffusers pipeline on `device` with weights in `dtype`.

    Raises SparseError when diffusers cannot load it; the cause is chained.
    """
    import torch
    from diffusers import DiffusionPipeline

    try:
        pipe = DiffusionPipeline.from_pretrained(files.name, dtype=getattr(torch, dtype))
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise SparseError(
            f"{files.name} could not be loaded: {str(error).strip() or type(error).__name__}"
        ) from error
    return pipe.to(device)


def resolve_device(device: str | None) -> str:
    """The device to run on; the GPU, if there is one, when None.

    Raises SparseError when torch does not know the device or cannot use it.
    """
    import torch

    name = device or default_device()
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises both, with long texts
        raise SparseError(
            f"device={name!r} cannot be used: {_sentence(error)} Leave it out to use the GPU if "
            f"there is one, else the CPU."
        ) from error
    return name


def _sentence(error: Exception) -> str:
    """The first line of an error's text, with a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('. ')}."


def resolve_dtype(dtype: str | None, recipe: GenerationRecipe, device: str) -> str:
    """The user's dtype, else the recipe's, else bfloat16; float32 where that would crawl.

    A CPU without bfloat16 instructions computes it many times slower than float32, dense attention
    above all, which would flatter every sparse method.
    """
    name = dtype or recipe.dtype or "bfloat16"
    if name not in DTYPES:
        raise SparseError(f"dtype={name!r}: needs one of {', '.join(DTYPES)}.")
    if dtype is None and name == "bfloat16" and device.startswith("cpu") and not _fast_bfloat16():
        return "float32"
    return name


def _fast_bfloat16() -> bool:
    """Whether an x86 CPU has bfloat16 instructions; yes for those that are not known."""
    features = set(cpu_features())
    return "avx2" not in features or bool(features & {"avx512_bf16", "amx_bf16"})


def hide_library_bars() -> None:
    """Switch off the progress bars that libraries draw while loading."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
