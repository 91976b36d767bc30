"""The blocks a sparse call leaves out, each stood in for by one mean key and one mean value."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count

_CHUNK = 1 << 21  # score elements computed at a time: 8 MB, which stays in a CPU's cache


def pool_blocks(x: Tensor, block: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of every block of `block` tokens: float32 ``[b, h, n, d]``, and its token count ``[b, n]``.

    x ``[b, t, h, d]``; tokens at and beyond ``lengths`` ``[b]`` take no part.
    """
    batch, tokens, heads, dim = x.shape
    blocks = block_count(tokens, block)
    valid = torch.arange(blocks * block, device=x.device) < lengths[:, None]
    padded = torch.nn.functional.pad(x.float(), (0, 0, 0, 0, 0, blocks * block - tokens))
    padded = padded * valid[:, :, None, None]
    count = valid.reshape(batch, blocks, block).sum(dim=-1)
    total = padded.reshape(batch, blocks, block, heads, dim).sum(dim=2)
    return (total / count.clamp(min=1)[:, :, None, None]).transpose(1, 2), count


def remainder_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float,
    kv_lens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of every query over the pooled blocks that `mask` does not compute.

    A block of n tokens enters with score q·mean(k) * scale + ln n and value mean(v): exact where its
    keys are alike (the pooled branch of Video-BLADE §3.1, over unselected blocks only, so that no
    mass counts twice). Returns float32 output ``[b, h, s, d]`` and natural-log LSE ``[b, h, s]``.
    """
    batch, tokens = q.shape[:2]
    lengths = kv_lens if kv_lens is not None else torch.full((batch,), k.shape[1], device=q.device)
    keys, count = pool_blocks(k, mask.block_size[1], lengths)
    values, _ = pool_blocks(v, mask.block_size[1], lengths)
    bias = count.log()[:, None, None, :].masked_fill(mask.to_dense(), -torch.inf)
    queries = q.transpose(1, 2).float() * scale
    rows = mask.block_size[0]
    per_chunk = max(1, _CHUNK // (batch * q.shape[2] * rows * keys.shape[2]))
    outputs, lses = [], []
    for first in range(0, mask.q_blocks, per_chunk):
        part = bias[:, :, first : first + per_chunk].repeat_interleave(rows, dim=2)
        chunk = queries[:, :, first * rows : (first + per_chunk) * rows]
        scores = chunk @ keys.mT + part[:, :, : chunk.shape[2]]
        lse = scores.logsumexp(dim=-1)
        weights = (scores - lse.clamp(min=torch.finfo(lse.dtype).min)[..., None]).exp()
        outputs.append(weights @ values)
        lses.append(lse)
    return torch.cat(outputs, dim=2)[:, :, :tokens], torch.cat(lses, dim=2)[:, :, :tokens]


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Join two attention results over disjoint keys by their LSE, in float32.

    out ``[b, s, h, d]`` and lse ``[b, h, s]``; other ``[b, h, s, d]`` and other_lse ``[b, h, s]``.
    Returns ``[b, s, h, d]`` in out's dtype.
    """
    share = torch.sigmoid(other_lse - lse).transpose(1, 2)[
        ..., None
    ]  # exp(l2) / (exp(l1) + exp(l2))
    return torch.lerp(out.float(), other.transpose(1, 2), share).to(out.dtype)
