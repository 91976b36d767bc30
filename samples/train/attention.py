"""Attention processors for training: the same function as diffusers' own, faster for this model."""

from __future__ import annotations

from typing import Any

import torch
from captions import CAPTION_TOKENS
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

# Above this many tokens the scores of one head at a time stay closer to the cache of a CPU.
ONE_HEAD_AT_A_TIME = 600


def attend(q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention `[b, h, l, d]`; on a CPU written out, which trains faster than the fused one.

    At 2304 tokens, bfloat16, batch 3, on two cores forward and backward take .107 + .133 s against
    .094 + .183 s; at 256 tokens they take half the time.
    """
    if q_bhld.device.type != "cpu":
        return torch.nn.functional.scaled_dot_product_attention(
            q_bhld, k_bhld, v_bhld.type_as(q_bhld), bias
        )
    if q_bhld.shape[2] > ONE_HEAD_AT_A_TIME and q_bhld.shape[1] > 1:
        heads = zip(*(x.split(1, dim=1) for x in (q_bhld, k_bhld, v_bhld)), strict=True)
        return torch.cat([attend(q, k, v, bias) for q, k, v in heads], dim=1)
    scores = (q_bhld * q_bhld.shape[-1] ** -0.5) @ k_bhld.transpose(-1, -2)
    return torch.softmax(scores if bias is None else scores + bias, dim=-1) @ v_bhld


def rotate(x_bhld: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in real numbers, which torch.compile can fuse; tables are `[1, l, 1, d]`."""
    even, odd = x_bhld.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2].float().transpose(1, 2), sin[..., 1::2].float().transpose(1, 2)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x_bhld)


def _project(attn: Any, hidden: Tensor, context: Tensor) -> list[Tensor]:
    projected = (
        attn.norm_q(attn.to_q(hidden)),
        attn.norm_k(attn.to_k(context)),
        attn.to_v(context),
    )
    heads = [x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in projected]
    return [x.to(heads[-1].dtype) for x in heads]


def _output(attn: Any, out_bhld: Tensor) -> Tensor:
    return attn.to_out[1](attn.to_out[0](out_bhld.transpose(1, 2).flatten(2, 3)))


class TrainingSelfAttention(WanAttnProcessor):
    """Self-attention over all tokens of a clip."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states `[b, l, c]` to the same shape; `rotary_emb` is needed."""
        query, key, value = _project(attn, hidden_states, hidden_states)
        query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        return _output(attn, attend(query, key, value))


class PaddedTextAttention(WanAttnProcessor):
    """Cross-attention to CAPTION_TOKENS text tokens as if they were padded to a longer length.

    WanPipeline pads every prompt with zeros. All padding keys are equal, so n of them weigh exactly
    as much as one with log(n) added to its score: long padding at the price of a few tokens.
    """

    bias: Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states `[b, l, c]` to the same shape, from text `[b, CAPTION_TOKENS, c]`."""
        query, key, value = _project(attn, hidden_states, encoder_hidden_states)
        bias = None if self.bias is None else self.bias.to(query.device, query.dtype)
        return _output(attn, attend(query, key, value, bias))

    def pad_to(self, counts: Tensor, length: int) -> None:
        """Act as if captions of `counts` tokens (`[b]`) were padded to `length` tokens."""
        padding = torch.arange(CAPTION_TOKENS)[None] >= counts[:, None]
        spare = (CAPTION_TOKENS - counts).clamp(min=1).float()
        weight = ((length - counts).float() / spare).log()[:, None]
        self.bias = (padding * weight)[:, None, None, :]


class PickedFrames(torch.nn.Module):
    """Stands in for the rotary embedding of a model that is given some frames of a longer clip."""

    def __init__(self, rope: torch.nn.Module):
        super().__init__()
        self.rope = rope
        self.tables: tuple[Tensor, ...] | None = None

    def pick(self, latents: Tensor, chosen: Tensor) -> Tensor:
        """The `chosen` frames (`[n]`) of latents `[b, c, frames, h, w]`; from now on the tables are
        those of these frames."""
        shape = (latents.shape[2], latents.shape[3] * latents.shape[4])
        tables = [table.unflatten(1, shape)[:, chosen] for table in self.rope(latents)]
        self.tables = tuple(table.flatten(1, 2).contiguous() for table in tables)
        return latents[:, :, chosen]

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Cosine and sine tables for the frames that `pick` chose, else for all of `hidden`."""
        return self.rope(hidden) if self.tables is None else self.tables


def set_training_attention(model: WanTransformer3DModel) -> PaddedTextAttention:
    """Install both processors in `model`; gives the shared text processor, to set its padding."""
    text_attention = PaddedTextAttention()
    for block in model.blocks:
        block.attn1.set_processor(TrainingSelfAttention())
        block.attn2.set_processor(text_attention)
    return text_attention
