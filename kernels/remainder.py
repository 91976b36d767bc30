"""The blocks a sparse call leaves out, each stood in for by one mean key and one mean value."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparsediff.kernels.backend import Backend
from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.kernels.inputs import AttentionInputs, PooledBlocks

_CHUNK = 1 << 21  # score elements computed at a time: 8 MB, which stays in a CPU's cache


def pool_blocks(k: Tensor, v: Tensor, block: int, kv_lens: Tensor | None = None) -> PooledBlocks:
    """Every block of `block` keys as one token: k, v ``[b, t, h, d]`` to ``[b, n, h, d]``.

    Keys at and beyond ``kv_lens`` ``[b]`` take no part.
    """
    batch, tokens = k.shape[:2]
    blocks = block_count(tokens, block)
    first = torch.arange(blocks, device=k.device) * block
    ends = torch.full((batch,), tokens, device=k.device) if kv_lens is None else kv_lens
    count = (ends[:, None] - first).clamp(0, block)
    keys, values = (_mean(x, block, count, masked=kv_lens is not None) for x in (k, v))
    return PooledBlocks(keys=keys, values=values, log_count=count.float().log())


def _mean(x: Tensor, block: int, count: Tensor, *, masked: bool) -> Tensor:
    batch, tokens, heads, dim = x.shape
    blocks = count.shape[1]
    if not masked:
        # Cut into its parts: padding to whole blocks would copy it several times.
        first = x[:, : tokens // block * block].unflatten(1, (-1, block)).mean(dim=2)
        rest = x[:, tokens // block * block :]
        return (
            torch.cat([first, rest.mean(dim=1, keepdim=True)], dim=1) if tokens % block else first
        )
    padded = torch.nn.functional.pad(x.float(), (0, 0, 0, 0, 0, blocks * block - tokens))
    padded = padded.reshape(batch, blocks, block, heads, dim)
    valid = torch.arange(block, device=x.device) < count[..., None]
    total = (padded * valid[..., None, None]).sum(dim=2)
    return (total / count.clamp(min=1)[..., None, None]).to(x.dtype)


def attention(backend: Backend, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
    """`backend.attention`, with pooled blocks added afterwards where the backend does not take them."""
    if inputs.pooled is None or backend.pools:
        return backend.attention(inputs)
    out, lse = backend.attention(replace(inputs, pooled=None, return_lse=True))
    if lse is None:
        raise TypeError(f"backend {backend.name!r} returned no LSE though it was asked for")
    out, lse = with_remainder(inputs, inputs.pooled, out, lse)
    return out, lse if inputs.return_lse else None


def with_remainder(
    inputs: AttentionInputs, pooled: PooledBlocks, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """Output and LSE of a sparse call with its pooled blocks added, by torch's own operations."""
    rest = remainder_attention(inputs.q, pooled, inputs.mask, scale=inputs.scale)
    return merge(out, lse, *rest), torch.logaddexp(lse, rest[1])


def remainder_attention(
    q: Tensor, pooled: PooledBlocks, mask: BlockMask, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of every query over the pooled blocks that `mask` does not compute.

    Over unselected blocks only, so that no mass counts twice; returns as `pooled_attention` does.
    """
    rows = mask.block_size[0]
    return pooled_attention(q, pooled, scale=scale, rows=rows, computed=mask.to_dense())


def pooled_attention(
    q: Tensor,
    pooled: PooledBlocks,
    *,
    scale: float,
    rows: int,
    computed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of every query over pooled blocks (the pooled branch of Video-BLADE §3.1).

    A block of n tokens enters with score q·mean(k) * scale + ln n and value mean(v): exact where its
    keys are alike. `computed` bool ``[b or 1, h or 1, m, n]``: the blocks that take no part for `rows`
    queries at a time; None for none. Returns float32 output ``[b, h, s, d]`` and natural-log LSE ``[b,
    h, s]``; a query without any block gives 0 and -inf.
    """
    batch, tokens, heads = q.shape[:3]
    keys, values = (x.transpose(1, 2).float() for x in (pooled.keys, pooled.values))
    bias = pooled.log_count[:, None, None, :]
    if computed is not None:
        bias = bias.masked_fill(computed, -torch.inf)
    # The logarithm of an empty sum has no gradient: rows without a block get one, which is cut off.
    empty = bias.isneginf().all(dim=-1, keepdim=True)
    bias = bias.masked_fill(empty, 0.0)
    queries = q.transpose(1, 2).float() * scale
    per_chunk = max(1, _CHUNK // (batch * heads * rows * keys.shape[2]))
    outputs, lses = [], []
    for first in range(0, block_count(tokens, rows), per_chunk):
        chunk = queries[:, :, first * rows : (first + per_chunk) * rows]
        part, none = (
            _by_query(x, slice(first, first + per_chunk), rows, chunk.shape[2])
            for x in (bias, empty)
        )
        scores = chunk @ keys.mT + part
        lse = scores.logsumexp(dim=-1)
        out = (scores - lse[..., None]).exp() @ values
        outputs.append(out.masked_fill(none, 0.0))
        lses.append(lse.masked_fill(none[..., 0], -torch.inf))
    return torch.cat(outputs, dim=2), torch.cat(lses, dim=2)


def _by_query(x: Tensor, part: slice, rows: int, queries: int) -> Tensor:
    """The rows of ``[b, h, m, n]`` that are `part`, for each of their queries; one row is for all."""
    return x if x.shape[2] == 1 else x[:, :, part].repeat_interleave(rows, dim=2)[:, :, :queries]


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Join two attention results over disjoint keys by their LSE, in float32.

    out ``[b, s, h, d]`` and lse ``[b, h, s]``; other ``[b, h, s, d]`` and other_lse ``[b, h, s]``.
    Returns ``[b, s, h, d]`` in out's dtype.
    """
    other_lse = other_lse.clamp(min=torch.finfo(other_lse.dtype).min)  # -inf less -inf is no number
    share = torch.sigmoid((other_lse - lse).float())  # exp(l2) / (exp(l1) + exp(l2))
    share = share.transpose(1, 2)[..., None]
    return torch.lerp(out.float(), other.transpose(1, 2), share).to(out.dtype)
