"""dense_attention_lse: the fastest dense kernel of torch that also returns the LSE."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.backend import Backend
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.inputs import AttentionInputs, check_tensors, checked_lens, checked_scale
from sparsediff.kernels.reference import ReferenceBackend
from sparsediff.kernels.triton import TritonBackend

# torch._fused_sdp_choice: the kernel that scaled_dot_product_attention itself would take.
FLASH, EFFICIENT, CUDNN = 1, 2, 3


def dense_attention_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    kv_lens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Dense softmax attention and its LSE.

    Args:
        q: ``[batch, q tokens, heads, dim]``, any strides.
        k: ``[batch, kv tokens, heads, dim]``, dtype and device of q.
        v: as k.
        scale: multiplies q k^T; 1 / sqrt(dim) by default.
        kv_lens: int ``[batch]``; keys at and beyond it are padding and take no part.

    Returns:
        The output ``[batch, q tokens, heads, dim]`` in q's dtype and the natural-log LSE, float32
        ``[batch, heads, q tokens]``; a query without keys gives 0 and -inf.

    Raises:
        SparseError: the inputs do not fit together or, on CPU, hold numbers that are not finite.
    """
    check_tensors(q=q, k=k, v=v)
    factor, lens = checked_scale(scale, q), checked_lens(kv_lens, k)
    if lens is not None:
        padded = _everything(q, k, v, block_size=(128, 64), scale=factor, kv_lens=lens)
        if not TritonBackend().reasons(padded):
            # A bias for the padding would cost torch's fused kernels their fastest paths.
            return _computed(TritonBackend(), padded)
    found = dense_kernel(q, k, v, factor, lens)
    if found is None:
        block = (128, k.shape[1])
        everything = _everything(q, k, v, block_size=block, scale=factor, kv_lens=lens)
        return _computed(ReferenceBackend(), everything)
    if lens is None:
        return found
    # The kernels give NaN, or the mean of all values, for a query without keys.
    out, lse = found
    empty = lens == 0
    out = out.masked_fill(empty[:, None, None, None], 0.0)
    return out, lse.masked_fill(empty[:, None, None], float("-inf"))


def _everything(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: tuple[int, int],
    scale: float,
    kv_lens: Tensor | None,
) -> AttentionInputs:
    """Block-sparse inputs that leave nothing out."""
    mask = BlockMask.full(
        block_size=block_size, q_len=q.shape[1], kv_len=k.shape[1], device=q.device
    )
    return AttentionInputs(q=q, k=k, v=v, mask=mask, scale=scale, kv_lens=kv_lens, return_lse=True)


def _computed(backend: Backend, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    out, lse = backend.attention(inputs)
    if lse is None:
        raise TypeError(f"backend {backend.name!r} returned no LSE though it was asked for")
    return out, lse.float()


def dense_kernel(
    q: Tensor, k: Tensor, v: Tensor, scale: float, kv_lens: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """torch's fused kernel on ``[b, s, h, d]`` tensors: output and fp32 LSE; None where none fits."""
    if q.dtype == torch.float64 or q.device.type not in {"cpu", "cuda"}:
        return None
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    bias = None if kv_lens is None else _padding_bias(kv_lens, q, k)
    run = _cpu_kernel if q.device.type == "cpu" else _cuda_kernel
    found = run(q, k, v, bias, scale)
    return None if found is None else (found[0].transpose(1, 2), found[1].float())


def _padding_bias(kv_lens: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """0 for keys, -inf for padding: q's dtype, ``[b, 1, s, t]`` with stride 0 over queries."""
    padding = torch.arange(k.shape[2], device=k.device) >= kv_lens[:, None]
    bias = torch.zeros(padding.shape, dtype=q.dtype, device=q.device)
    bias.masked_fill_(padding, float("-inf"))
    return bias[:, None, None].expand(-1, q.shape[1], q.shape[2], -1)


def _cpu_kernel(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor] | None:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=bias, scale=scale
    )
    return out, lse


def _cuda_kernel(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor] | None:
    aten = torch.ops.aten
    choice = torch._fused_sdp_choice(q, k, v, bias, scale=scale)
    if choice == FLASH and q.shape[-1] % 8 == 0:
        return aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]  # type: ignore[no-any-return]
    if choice == CUDNN:
        out, lse = aten._scaled_dot_product_cudnn_attention(q, k, v, bias, True, scale=scale)[:2]
        return out, lse.reshape(q.shape[:3])
    if choice == EFFICIENT and (bias is None or k.shape[2] % 8 == 0):
        out, lse = aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, scale=scale)[
            :2
        ]
        return out, lse[..., : q.shape[2]]
    return None
