"""Global tokens: every n keys as one more key that all queries attend to (Video-BLADE's ASA_G)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.remainder import merge, pool_blocks, pooled_attention

_ROWS = 64  # queries by which the work is cut


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
    rest, rest_lse = pooled_attention(inputs.q, pooled, scale=inputs.scale, rows=_ROWS)
    return merge(out, lse, rest, rest_lse), torch.logaddexp(lse.float(), rest_lse)
