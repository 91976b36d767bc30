"""FaintKeys: padding that a model weighs less instead of hiding it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels import dense_attention_lse
from sparsediff.kernels.remainder import merge


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FaintKeys:
    """Padding under a mask of ones and zeros that diffusers adds to the scores (Chroma, GLM-Image).

    The mask is the outer product of a padding mask with itself: one is added between two tokens that
    are no padding, so that for these queries padding counts 1/e of what it would, and nothing is added
    for a query that is padding. ``lengths`` int64 ``[b]``: the tokens that are no padding come first;
    ``least`` the smallest of them.
    """

    lengths: Tensor
    least: int

    def added(
        self, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, *, scale: float
    ) -> Tensor:
        """Attention over all keys, from that over the others, ``[b, s, h, d]`` with LSE ``[b, h, s]``.

        Every query looks at all of the padding, as at all text; the two are joined by their LSE.
        """
        q, k, v = qkv
        tokens = q.shape[1]
        # Backwards, so that the padding comes first and `kv_lens` can say how much there is.
        keys, values = (x[:, self.least :].flip(1) for x in (k, v))
        padding = tokens - self.lengths
        faint, faint_lse = dense_attention_lse(q, keys, values, scale=scale, kv_lens=padding)
        full = torch.arange(tokens, device=q.device) < self.lengths[:, None]
        raised = lse.float() + full[:, None].float()
        return merge(out, raised, faint.float().transpose(1, 2), faint_lse)
