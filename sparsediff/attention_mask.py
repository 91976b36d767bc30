"""From the attention mask a model passes to the number of valid keys, where that is possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPadding:
    """What a padding mask says: ``lengths``, int64 ``[b]`` valid keys, or None when it hides no key."""

    lengths: Tensor | None


def key_padding(mask: Tensor, *, batch: int, heads: int, tokens: int) -> KeyPadding | None:
    """Valid keys per batch item of a bool mask that hides a tail of the keys.

    None when the mask says anything else (query-dependent, additive, holes between valid keys): such a
    call has to run dense. Synchronises a GPU once. Raises SparseError when the mask does not fit
    attention of [batch, heads, tokens, tokens] at all, or hides every key of a batch item.
    """
    shape = tuple(mask.shape)
    wanted = (batch, heads, tokens, tokens)
    padded = (batch, 1, 1, tokens) if shape == (batch, tokens) else (1,) * (4 - len(shape)) + shape
    fits = len(padded) == 4 and all(
        have in (1, want) for have, want in zip(padded, wanted, strict=True)
    )
    if not fits:
        raise SparseError(
            f"The attention mask has shape {shape}; attention over {tokens} tokens needs a mask that "
            f"broadcasts to {list(wanted)} or [batch, tokens]. Check the inputs of the model."
        )
    if mask.dtype != torch.bool or padded[1] != 1 or padded[2] != 1 or padded[3] != tokens:
        return None
    keys = mask.reshape(-1, tokens).expand(batch, tokens)
    lengths = keys.sum(dim=1)
    prefix = torch.arange(tokens, device=keys.device) < lengths[:, None]
    # One read for all three answers: a GPU is waited for once.
    facts = torch.stack([(keys == prefix).all(), (lengths > 0).all(), (lengths == tokens).all()])
    only_a_tail, some_left, none_hidden = facts.tolist()
    if not only_a_tail:
        return None
    if not some_left:
        raise SparseError(
            f"The attention mask hides all {tokens} keys of a batch item; at least one must be valid. "
            f"Check the inputs of the model."
        )
    return KeyPadding(lengths=None if none_hidden else lengths)
