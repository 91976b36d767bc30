"""The triton backend: NVIDIA GPUs from compute capability 8.0, forward, backward and block mass."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.inputs import AttentionInputs, MassInputs, PooledBlocks
from sparsediff.kernels.remainder import with_remainder
from sparsediff.kernels.triton.row_lists import TransposedLists, row_lists, transposed_lists
from sparsediff.kernels.triton.tiles import GENERATIONS, block_reasons, dim_reasons

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Offsets inside a tile, of up to 128 tokens by 256 dims, have 32 bits.
MAX_TOKEN_STRIDE = ((1 << 31) - 256) // 127
# The map of the chosen blocks takes a byte per pair, and every layer has a mask: larger ones are made
# again for each call, at a few hundredths of its time.
MAX_KEPT_BYTES = 16 << 20


class TritonBackend:
    """Our Triton kernels; on CPU tensors only in Triton's interpreter (TRITON_INTERPRET=1)."""

    name = "triton"
    pools = True

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here."""
        return _reasons(inputs.q) + block_reasons(inputs.mask.block_size)

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""
        from sparsediff.kernels.triton.operators import block_sparse_attention

        q, k, v = (dim_contiguous(x) for x in (inputs.q, inputs.k, inputs.v))
        mask, lens = inputs.mask, _lengths(inputs.kv_lens)
        rules, table = mask.rules, None
        if rules is not None:
            table = rules.table.expand(q.shape[2], 4).contiguous()
        lists = row_lists(
            mask,
            batch=q.shape[0],
            heads=q.shape[2],
            head_bytes=2 * k.shape[1] * k.shape[3] * k.element_size(),
            kv_lens=lens,
        )
        transposed: TransposedLists | None = None
        if inputs.needs_grad:
            transposed = mask.derived("triton transposed", lambda: transposed_lists(mask))
        out, lse = block_sparse_attention(
            q,
            k,
            v,
            lists.counts,
            lists.indices,
            lists.order,
            lens,
            table,
            0 if rules is None else rules.lead,
            0 if rules is None else rules.trail,
            None if transposed is None else transposed.counts,
            None if transposed is None else transposed.starts,
            None if transposed is None else transposed.rows,
            *mask.block_size,
            inputs.scale,
        )
        if inputs.pooled is not None:
            out, lse = _with_pooled(inputs, inputs.pooled, q, out, lse)
        return out, lse if inputs.return_lse else None

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Why the block mass cannot be computed here."""
        found = _reasons(inputs.q) + block_reasons((16, inputs.block_size[1]))
        if inputs.needs_grad:
            found.append("the block mass has no gradient (detach q and k)")
        return found

    def mass(self, inputs: MassInputs) -> Tensor:
        """fp32 ``[b, h, m, n]``: sum of exp(q k^T scale - lse) over each block pair."""
        from sparsediff.kernels.triton.operators import block_mass

        q, k = dim_contiguous(inputs.q), dim_contiguous(inputs.k)
        lens = _lengths(inputs.kv_lens)
        mass: Tensor = block_mass(q, k, inputs.lse, lens, *inputs.block_size, inputs.scale)
        return mass


def _with_pooled(
    inputs: AttentionInputs, pooled: PooledBlocks, q: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """The result with the blocks left out added; in torch where it must have a gradient."""
    if inputs.needs_grad:
        return with_remainder(inputs, pooled, out, lse)
    from sparsediff.kernels.triton.operators import add_pooled_blocks

    mask = inputs.mask
    keys, values = dim_contiguous(pooled.keys), dim_contiguous(pooled.values)
    total: tuple[Tensor, Tensor] = add_pooled_blocks(
        q,
        keys,
        values,
        pooled.log_count.contiguous(),
        _chosen_blocks(mask),
        out,
        lse,
        mask.block_size[0],
        inputs.scale,
    )
    return total


def _chosen_blocks(mask: BlockMask) -> Tensor:
    """uint8 ``[b or 1, h or 1, m, n]``: 1 where a block is computed; kept with the mask if small."""
    if mask.counts.numel() * mask.kv_blocks > MAX_KEPT_BYTES:
        return mask.to_dense().view(torch.uint8)
    return mask.derived("triton chosen", lambda: mask.to_dense().view(torch.uint8))


def _lengths(kv_lens: Tensor | None) -> Tensor | None:
    """The kernels read the lengths one after the other; a slice or an expanded one has strides."""
    return None if kv_lens is None else kv_lens.contiguous()


def dim_contiguous(x: Tensor) -> Tensor:
    """The kernels read heads with stride 1; other strides may be anything but enormous per token."""
    dense = x.stride(-1) == 1 or x.shape[-1] == 1
    return x if dense and x.stride(1) <= MAX_TOKEN_STRIDE else x.contiguous()


def interpreting() -> bool:
    """Whether Triton runs its kernels in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _reasons(q: Tensor) -> list[str]:
    found = []
    if not has_triton():
        found.append("triton is not installed")
    if q.dtype not in DTYPES:
        found.append(f"{q.dtype} (needs bfloat16, float16 or float32)")
    found += dim_reasons(q.shape[3], q.dtype)
    if q.device.type == "cpu":
        if not interpreting():
            found.append("CPU tensors (needs a CUDA device, or TRITON_INTERPRET=1 to test)")
        elif q.dtype == torch.bfloat16:
            found.append("Triton's interpreter computes no bfloat16 products")
    elif q.device.type != "cuda" or torch.version.hip:
        found.append(f"no kernel for {q.device.type} (needs an NVIDIA GPU)")
    elif torch.cuda.is_available() and _capability(q.device.index) < GENERATIONS[0]:
        found.append("compute capability below 8.0")
    return found


@functools.cache
def _capability(index: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return major * 10 + minor
