"""HunyuanVideo 1.5's attention with a mask over keys instead of one over pairs of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

_REACHED = "HunyuanVideo15AttnProcessor2_0"


def keys_masked(base: Any) -> Callable[..., Any] | None:
    """The ``__call__`` of HunyuanVideo 1.5's processor class; None for any other class.

    diffusers' own makes a bool mask of ``[b, 1, n, n]`` in every layer, 12 GiB for 121 frames of
    720p, in which padding sees nothing. Its output is padding again and reaches no video token, so
    hiding the padded keys, ``[b, 1, 1, n]``, gives the same video. That is what HunyuanVideo's
    processor does with the mask it is given; its double blocks and these compute the same.
    """
    if base.__name__ != _REACHED:
        return None
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0

    joint_attention = HunyuanVideoAttnProcessor2_0.__call__

    def call(  # noqa: PLR0917  (the signature of diffusers' processors)
        self: Any,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        if attention_mask is not None:
            video = hidden_states.shape[1]
            attention_mask = F.pad(attention_mask.bool(), (video, 0), value=True)[:, None, None]
        return joint_attention(
            self, attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )

    return call
