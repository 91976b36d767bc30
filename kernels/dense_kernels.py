"""Dense kernels by name: what a sparse kernel is measured against, each with why it cannot run."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.kernels.errors import BackendError, SparseError
from sparsediff.kernels.inputs import check_tensors, checked_scale

Run = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Reasons = Callable[[Tensor, Tensor, Tensor], list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseKernel:
    """One implementation of dense attention.

    ``reasons(q, k, v)`` says why it cannot run such tensors, nothing when it can;
    ``run(q, k, v, scale)`` computes ``[b, s, h, d]`` from tensors of that layout with any strides, and
    autograd goes through it.
    """

    name: str
    reasons: Reasons
    run: Run


def dense_kernels() -> tuple[DenseKernel, ...]:
    """cudnn, flash and efficient of torch's SDPA, flex (FlexAttention without a mask), xformers."""
    return (
        _sdpa_kernel("cudnn", "CUDNN_ATTENTION"),
        _sdpa_kernel("flash", "FLASH_ATTENTION"),
        DenseKernel(name="flex", reasons=_flex_reasons, run=_flex),
        _sdpa_kernel("efficient", "EFFICIENT_ATTENTION"),
        DenseKernel(name="xformers", reasons=_xformers_reasons, run=_xformers),
    )


def find_dense_kernel(name: str) -> DenseKernel:
    """The kernel of that name; raises SparseError with the known names for any other."""
    for kernel in dense_kernels():
        if kernel.name == name:
            return kernel
    known = ", ".join(kernel.name for kernel in dense_kernels())
    raise SparseError(f"Unknown dense kernel {name!r}; choose among {known}.")


def dense_attention(
    name: str, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
) -> Tensor:
    """Dense softmax attention by the named kernel and no other.

    Args:
        name: of :func:`dense_kernels`.
        q: ``[batch, q tokens, heads, dim]``, any strides.
        k: ``[batch, kv tokens, heads, dim]``, dtype and device of q.
        v: as k.
        scale: multiplies q k^T; 1 / sqrt(dim) by default.

    Returns:
        The output ``[batch, q tokens, heads, dim]`` in q's dtype.

    Raises:
        SparseError: the inputs do not fit together, or there is no such kernel.
        BackendError: the kernel cannot run them.
    """
    kernel = find_dense_kernel(name)
    check_tensors(q=q, k=k, v=v)
    found = kernel.reasons(q, k, v)
    if found:
        raise BackendError(f"Dense kernel {name!r} cannot run these inputs: {'; '.join(found)}.")
    return kernel.run(q, k, v, checked_scale(scale, q))


def _sdpa_kernel(name: str, member: str) -> DenseKernel:
    """A kernel of scaled_dot_product_attention; pinned, so that it raises instead of falling back."""
    from torch.nn.attention import SDPBackend

    backend = SDPBackend.__members__[member]

    def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
        return _sdpa_reasons(name, q, k, v)

    def run(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        from torch.nn.attention import sdpa_kernel

        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        with sdpa_kernel([backend]):
            return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)

    return DenseKernel(name=name, reasons=reasons, run=run)


def _sdpa_reasons(name: str, q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    device = q.device.type
    if device == "cpu":
        return [] if name == "flash" else [f"torch has no {name} attention on CPU"]
    if device != "cuda":
        return [f"torch has no {name} attention on {device}"]
    cuda = torch.backends.cuda
    parameters = cuda.SDPAParams(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None, 0.0, False, False
    )
    can_use = {
        "cudnn": cuda.can_use_cudnn_attention,
        "flash": cuda.can_use_flash_attention,
        "efficient": cuda.can_use_efficient_attention,
    }[name]
    if can_use(parameters):
        return []
    return [f"torch's {name} attention does not take {q.dtype} with head dim {q.shape[3]} here"]


def _flex_reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    found = []
    if q.device.type != "cuda":
        found.append("FlexAttention without a mask is measured on CUDA only")
    if importlib.util.find_spec("triton") is None:
        found.append("torch.compile needs triton on CUDA")
    if q.dtype == torch.float64:
        found.append("torch.float64 (needs float32, bfloat16 or float16)")
    return found


def _flex(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    tensors = (q, k, v)
    shapes = tuple((tuple(x.shape), x.stride(), x.requires_grad) for x in tensors)
    compiled = _compiled_flex((*shapes, q.dtype, q.device, torch.is_grad_enabled(), scale), scale)
    return compiled(*tensors)


@functools.cache
def _compiled_flex(kind: tuple[Any, ...], scale: float) -> Callable[..., Tensor]:
    """FlexAttention compiled for one kind of call: takes seconds, and never falls back."""
    from torch.nn.attention.flex_attention import flex_attention

    run: Any = flex_attention  # its overloads fit no call with star arguments

    def call(q: Tensor, k: Tensor, v: Tensor) -> Any:
        heads_first = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return run(*heads_first, scale=scale).transpose(1, 2)

    # Dynamo counts recompiles per code object and gives up after a few: each kind gets a copy.
    own = types.FunctionType(
        call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__
    )
    compiled: Callable[..., Tensor] = torch.compile(own, dynamic=False, fullgraph=True)
    return compiled


def _xformers_reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    if q.device.type != "cuda":
        return ["xformers is used on CUDA only"]
    ops = _xformers_ops()
    if ops is None:
        return ["xformers with memory_efficient_attention is not installed"]
    fmha = getattr(ops, "fmha", None)
    operators = getattr(fmha, "ALL_FW_OPS", None)
    if fmha is None or operators is None:  # another release: the call itself will tell
        return []
    inputs = fmha.Inputs(query=q, key=k, value=v)
    found = [operator.not_supported_reasons(inputs) for operator in operators]
    return [] if not all(found) else [f"none of its {len(found)} kernels: {found[0][0]}"]


def _xformers(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _xformers_ops().memory_efficient_attention(q, k, v, scale=scale)  # type: ignore[no-any-return]


@functools.cache
def _xformers_ops() -> Any:
    """``xformers.ops`` where it has the kernel; releases differ, so its features are asked for."""
    if importlib.util.find_spec("xformers") is None:
        return None
    try:
        ops = importlib.import_module("xformers.ops")
    except (ImportError, OSError, RuntimeError):  # built for another torch or CUDA
        return None
    return ops if hasattr(ops, "memory_efficient_attention") else None
