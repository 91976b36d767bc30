"""Global tokens: every n keys as one more key that all queries attend to (Video-BLADE's ASA_G)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from sparsediff.kernels.dense import dense_kernel
from sparsediff.kernels.inputs import AttentionInputs, PooledBlocks
from sparsediff.kernels.remainder import merge, pool_blocks, pooled_attention

_ROWS = 64  # queries by which the work is cut

# Output float32 [b, h, s, d] and LSE [b, h, s].
_Part = tuple[Tensor, Tensor]


def with_global_tokens(
    inputs: AttentionInputs, out: Tensor, lse: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Output ``[b, s, h, d]`` and LSE ``[b, h, s]`` of a sparse call with its global tokens added.

    Every `window` keys of the sequence are one more key, their mean, with score q·mean(k) * scale +
    ln n and value mean(v), for n keys (fewer than `window` at the end of the sequence, or at
    ``kv_lens``). Equal to attention over the chosen keys and the pooled ones together; a chosen key
    counts twice, once inside its window, as in the paper. Joined in float32; gradients reach q, k and
    v through both parts and their LSEs.
    """
    pooled = pool_blocks(inputs.k, inputs.v, window, inputs.kv_lens)
    joined, total = out.float(), lse.float()
    for rest, rest_lse in _parts(inputs, pooled, window):
        joined = merge(joined, total, rest, rest_lse)
        total = torch.logaddexp(total, rest_lse)
    return joined.to(out.dtype), total


def _parts(inputs: AttentionInputs, pooled: PooledBlocks, window: int) -> list[_Part]:
    """Attention over the global tokens, in parts to be joined.

    torch's fused kernels take no ln n for each key, but that of whole windows is one number; the last
    window, where it has fewer keys, is a part of its own. They give no gradient of the LSE either.
    """
    tokens, lens = inputs.k.shape[1], inputs.kv_lens
    whole = tokens // window
    fused = None
    if whole and not inputs.needs_grad:
        limit = None if lens is None else lens // window
        keys, values = pooled.keys[:, :whole], pooled.values[:, :whole]
        fused = dense_kernel(inputs.q, keys, values, inputs.scale, limit)
    if fused is None:
        return [pooled_attention(inputs.q, pooled, scale=inputs.scale, rows=_ROWS)]
    out, lse = fused[0].float().transpose(1, 2), fused[1] + log(window)
    if lens is not None:  # the kernels give anything for an item without keys
        empty = (lens < window)[:, None, None]
        out, lse = out.masked_fill(empty[..., None], 0.0), lse.masked_fill(empty, -torch.inf)
    if lens is None and tokens % window == 0:
        return [(out, lse)]
    return [(out, lse), _last_window(inputs, pooled, window)]


def _last_window(inputs: AttentionInputs, pooled: PooledBlocks, window: int) -> _Part:
    """Attention over one key, the one window of each item that has fewer keys; -inf where none has.

    The output of one key is its value, the same for all queries: ``[b, h, 1, d]``.
    """
    ends = inputs.kv_lens
    if ends is None:
        key, value = pooled.keys[:, -1:], pooled.values[:, -1:]
        bias = pooled.log_count[:, -1:]
    else:
        at = (ends // window).clamp(max=pooled.keys.shape[1] - 1)[:, None]
        items = torch.arange(len(at), device=at.device)[:, None]
        key, value = pooled.keys[items, at], pooled.values[items, at]
        bias = (ends % window).float().log()[:, None]
    score = (inputs.q.float() * (key.float() * inputs.scale)).sum(dim=-1) + bias[..., None]
    return value.float().transpose(1, 2), score.transpose(1, 2)
