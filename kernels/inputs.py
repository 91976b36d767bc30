"""Inputs of the kernels: validated once, then handed to a backend as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count, block_shape
from sparsediff.kernels.errors import SparseError

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledBlocks:
    """Every key block as one token: ``keys``, ``values`` ``[b, n, h, d]``, the means of its tokens,
    and ``log_count`` float32 ``[b, n]``, the logarithm of how many there are (-inf for none).
    """

    keys: Tensor
    values: Tensor
    log_count: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionInputs:
    """The inputs of one block-sparse attention call, validated.

    ``q`` ``[b, s, h, d]``, ``k`` and ``v`` ``[b, t, h, d]``, any strides, one dtype and device;
    ``mask`` covers s x t; ``scale`` multiplies q k^T; ``kv_lens`` int64 ``[b]`` or None: keys at
    and beyond it are padding and take no part; ``return_lse`` asks for the natural-log LSE
    ``[b, h, s]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: BlockMask
    scale: float
    kv_lens: Tensor | None = None
    return_lse: bool = False
    pooled: PooledBlocks | None = None

    @property
    def needs_grad(self) -> bool:
        """Whether autograd must flow through the call."""
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.q, self.k, self.v))


@dataclass(frozen=True, kw_only=True, slots=True)
class MassInputs:
    """The inputs of one block mass call, validated.

    ``q`` ``[b, s, h, d]``, ``k`` ``[b, t, h, d]``, any strides, one dtype and device; ``lse``
    float32 ``[b, h, s]``; ``block_size`` tokens per (query, key) block; ``kv_lens`` int64 ``[b]``
    or None.
    """

    q: Tensor
    k: Tensor
    lse: Tensor
    block_size: tuple[int, int]
    scale: float
    kv_lens: Tensor | None = None

    @property
    def needs_grad(self) -> bool:
        """Whether autograd must flow through the call."""
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.q, self.k, self.lse))

    @property
    def blocks(self) -> tuple[int, int]:
        """Number of query blocks and of key blocks."""
        rows, columns = self.block_size
        return block_count(self.q.shape[1], rows), block_count(self.k.shape[1], columns)


def attention_inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float | None,
    kv_lens: Tensor | None,
    return_lse: bool,
) -> AttentionInputs:
    """Check the arguments of `block_sparse_attention`; raises SparseError at the first misfit."""
    check_tensors(q=q, k=k, v=v)
    check_mask(mask, q, k)
    return AttentionInputs(
        q=q,
        k=k,
        v=v,
        mask=mask,
        scale=checked_scale(scale, q),
        kv_lens=checked_lens(kv_lens, k),
        return_lse=return_lse,
    )


def mass_inputs(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    block_size: int | tuple[int, int],
    scale: float | None,
    kv_lens: Tensor | None,
) -> MassInputs:
    """Check the arguments of `block_mass`; raises SparseError at the first misfit."""
    check_tensors(q=q, k=k)
    expected = (q.shape[0], q.shape[2], q.shape[1])
    if tuple(lse.shape) != expected or lse.dtype != torch.float32 or lse.device != q.device:
        raise SparseError(
            f"lse is {lse.dtype} {tuple(lse.shape)} on {lse.device}; block_mass needs "
            f"torch.float32 [batch, heads, q tokens] = {expected} on {q.device}, as "
            f"block_sparse_attention(..., return_lse=True) and dense_attention_lse return it."
        )
    return MassInputs(
        q=q,
        k=k,
        lse=lse,
        block_size=block_shape(block_size),
        scale=checked_scale(scale, q),
        kv_lens=checked_lens(kv_lens, k),
    )


def check_tensors(**tensors: Tensor) -> None:
    """Shapes, dtypes and devices of q, k and perhaps v; on CPU also that every number is finite."""
    q = tensors["q"]
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or x.ndim != 4 or x.numel() == 0:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise SparseError(
                f"{name} is {found}; give a tensor [batch, tokens, heads, head dim], none of them 0."
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise SparseError(
                f"{name} is {x.dtype} on {x.device}, q is {q.dtype} on {q.device}; all must be alike."
            )
        like_q = (x.shape[0], x.shape[2], x.shape[3]) == (q.shape[0], q.shape[2], q.shape[3])
        if not like_q or (name == "v" and x.shape[1] != tensors["k"].shape[1]):
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in tensors.items())
            raise SparseError(
                f"The shapes do not fit together: {shapes}. Batch, heads and head dim must be equal "
                f"in all, and k and v equally long."
            )
    if q.dtype not in DTYPES:
        raise SparseError(f"q is {q.dtype}; attention takes {', '.join(map(str, DTYPES))}.")
    if _readable(q):
        for name, x in tensors.items():
            _check_finite(name, x)


def _readable(x: Tensor) -> bool:
    """Whether values may be checked: a GPU would have to be waited for, and a compiler has none yet."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _check_finite(name: str, x: Tensor) -> None:
    # The extremes are NaN when any number is; one pass, and no copy as isfinite would make.
    low, high = x.detach().aminmax()
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        bad = int((~x.detach().isfinite()).sum().item())
        raise SparseError(
            f"{name} holds {bad} numbers that are not finite, of {x.numel()}; attention needs finite "
            f"inputs. Look for an overflow before this layer (float16 ends at 65504)."
        )


def check_mask(mask: BlockMask, q: Tensor, k: Tensor) -> None:
    """That the mask covers q x k, on their device; on CPU also that its indices are in range."""
    if not isinstance(mask, BlockMask):
        raise SparseError(
            f"mask is {type(mask).__name__}; give a BlockMask, for example BlockMask.from_dense(...)."
        )
    if (mask.q_len, mask.kv_len) != (q.shape[1], k.shape[1]):
        raise SparseError(
            f"The mask covers {mask.q_len} x {mask.kv_len} tokens, q and k have {q.shape[1]} x "
            f"{k.shape[1]}. Build the mask for these lengths."
        )
    batch, heads = mask.counts.shape[:2]
    if batch not in {1, q.shape[0]} or heads not in {1, q.shape[2]}:
        raise SparseError(
            f"The mask has batch {batch} and {heads} heads; q has batch {q.shape[0]} and "
            f"{q.shape[2]} heads. Each must be equal or 1."
        )
    if mask.device != q.device or mask.indices.device != q.device:
        raise SparseError(
            f"The mask is on {mask.device}, q is on {q.device}. Use mask.to({str(q.device)!r})."
        )
    if _readable(mask.counts):
        mask.check_range()


def checked_scale(scale: float | None, q: Tensor) -> float:
    """The scale as a float, 1 / sqrt(head dim) for None."""
    if scale is None:
        return 1.0 / math.sqrt(q.shape[3])
    value = float(scale)
    if not (math.isfinite(value) and value > 0):
        raise SparseError(
            f"scale={scale!r}; give a positive finite number, or None for 1 / sqrt(head dim)."
        )
    return value


def checked_lens(kv_lens: Tensor | None, k: Tensor) -> Tensor | None:
    """kv_lens as int64 ``[b]`` on k's device, or None."""
    if kv_lens is None:
        return None
    wrong = not isinstance(kv_lens, Tensor) or kv_lens.shape != k.shape[:1]
    if wrong or kv_lens.is_floating_point() or kv_lens.dtype == torch.bool:
        found = (
            f"{kv_lens.dtype} {tuple(kv_lens.shape)}"
            if isinstance(kv_lens, Tensor)
            else type(kv_lens).__name__
        )
        raise SparseError(
            f"kv_lens is {found}; give an integer tensor [{k.shape[0]}]: how many keys of each batch "
            f"item are not padding."
        )
    if _readable(kv_lens) and not 0 <= int(kv_lens.min()) <= int(kv_lens.max()) <= k.shape[1]:
        raise SparseError(
            f"kv_lens={kv_lens.tolist()}; each must be between 0 and the {k.shape[1]} keys."
        )
    return kv_lens.to(device=k.device, dtype=torch.int64)
