"""The fastest dense attention of this machine, and the time a model spends in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparsediff.transformer_bench.stopwatch import Stopwatch, wait

NATIVE = "native"
# By the names of diffusers' attention backends that run the same kernels.
_CUDA_KERNELS: dict[str, SDPBackend] = {
    "_native_cudnn": SDPBackend.CUDNN_ATTENTION,
    "_native_flash": SDPBackend.FLASH_ATTENTION,
}
_ERROR = 0.02  # share of the largest number; two kernels in bfloat16 differ by less than half of it


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseKernel:
    """A dense kernel and ``trials``: seconds of one call by every kernel that was tried."""

    name: str
    trials: dict[str, float]

    def chosen(self) -> AbstractContextManager[Any]:
        """Within it, torch computes attention with this kernel."""
        return _only(self.name)


def _only(name: str) -> AbstractContextManager[Any]:
    backend = _CUDA_KERNELS.get(name)
    # diffusers' `native` leaves the choice to torch.
    return contextlib.nullcontext() if backend is None else sdpa_kernel(backend)


def fastest_dense(
    shape: tuple[int, int, int, int], *, device: torch.device, dtype: torch.dtype
) -> DenseKernel:
    """Time torch's kernels on random ``[b, s, h, d]`` tensors of that shape, as a model lays them out.

    On a CPU there is only ``native``. A kernel that refuses the shape, or whose result is not that of
    ``native``, is left out.
    """
    names = (NATIVE, *_CUDA_KERNELS) if device.type == "cuda" else (NATIVE,)
    generator = torch.Generator(device).manual_seed(2)
    q, k, v = (
        torch.randn(shape, generator=generator, device=device, dtype=dtype).transpose(1, 2)
        for _ in range(3)
    )
    right = F.scaled_dot_product_attention(q, k, v)
    trials: dict[str, float] = {}
    for name in names:
        with _only(name):
            try:
                out = F.scaled_dot_product_attention(q, k, v)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # torch: no available kernel
                continue
            if _differ(out, right):
                continue
            rounds = []
            for _ in range(2):
                start = time.perf_counter()
                F.scaled_dot_product_attention(q, k, v)
                wait(device)
                rounds.append(time.perf_counter() - start)
            trials[name] = min(rounds)
    return DenseKernel(name=min(trials, key=trials.__getitem__), trials=trials)


def _differ(out: Tensor, right: Tensor) -> bool:
    return not bool((out - right).abs().max() <= _ERROR * right.abs().max())


@contextmanager
def timed_dense(kernel: DenseKernel, stopwatch: Stopwatch, tokens: int) -> Iterator[None]:
    """Within the block, self-attention over `tokens` runs in `kernel`, and `stopwatch` counts it.

    It is found by its length where every model calls it, ``F.scaled_dot_product_attention``; calls of
    other lengths (to text) stay as they are. HunyuanVideo passes a mask of text padding even if there
    is none, which would cost dense attention its fast kernels; a mask that hides nothing is left out.
    """
    original = F.scaled_dot_product_attention
    hides: bool | None = None  # looked up once: all masks of a run are the same

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        nonlocal hides
        if query.shape[-2] != tokens or key.shape[-2] != tokens:
            return original(query, key, value, *args, **options)
        mask = options.get("attn_mask")
        if mask is not None:
            if hides is None:
                hides = not bool(mask.all())
            if not hides:
                options["attn_mask"] = None
        with stopwatch.span(), kernel.chosen():
            return original(query, key, value, *args, **options)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
