"""From the attention mask a model passes to the number of valid keys, where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

OTHER = "the attention mask is not a key-padding mask"
HOLE = "the attention mask hides keys between valid ones"

# An additive mask hides a key with this or less. Models add -10000 (-9984 in bfloat16), the least
# number of a dtype, or -inf; exp(-1000) is 0 even in float64, and scores differ by hundreds at most.
_HIDDEN = -1000.0
_CHUNK = 1 << 24  # entries of a query-dependent mask that are looked at together


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPadding:
    """What a padding mask says: ``lengths``, int64 ``[b]`` valid keys, or None when it hides no key.

    ``arrangement``: in which of the orders asked for the valid keys come first.
    """

    lengths: Tensor | None
    arrangement: int = 0


def key_padding(
    mask: Tensor,
    *,
    batch: int,
    heads: int,
    tokens: int,
    orders: Sequence[Tensor | None] = (None,),
) -> KeyPadding | str:
    """Valid keys per batch item of a mask that hides keys from every query alike.

    The mask may be bool or additive (0 and -10000 or less), for keys only or for queries times keys. A
    hidden key's own query row may see what the others see, or nothing, as in the outer product of a
    padding mask with itself. `orders`: arrangements of the tokens, int64 ``[s]``, None for the model's
    own; the first one counts in which the hidden keys of every batch item are the last.

    Gives a reason instead when the mask says anything else: such a call has to run dense. Synchronises
    a GPU once. Raises SparseError when the mask does not fit attention of [batch, heads, tokens,
    tokens] at all, or hides every key of a batch item.
    """
    rows = _as_rows(mask, (batch, heads, tokens, tokens))
    if rows.shape[3] != tokens or not (rows.dtype == torch.bool or rows.is_floating_point()):
        return OTHER
    keys, alike = _keys(rows, tokens)
    keys = keys.expand(batch, tokens)
    lengths = keys.sum(dim=1)
    prefix = torch.arange(tokens, device=keys.device) < lengths[:, None]
    fitting = [(keys if x is None else keys[:, x.to(keys.device)]) == prefix for x in orders]
    # One read for all answers: a GPU is waited for once.
    facts = [_even(rows), alike, (lengths > 0).all(), (lengths == tokens).all()]
    facts += [x.all() for x in fitting]
    is_even, is_padding, some_left, none_hidden, *fits = torch.stack(facts).tolist()
    if is_even:
        return KeyPadding(lengths=None)
    if not is_padding:
        return OTHER
    if not some_left:
        raise SparseError(
            f"The attention mask hides all {tokens} keys of a batch item; at least one must be valid. "
            f"Check the inputs of the model."
        )
    if none_hidden:
        return KeyPadding(lengths=None)
    if not any(fits):
        return HOLE
    return KeyPadding(lengths=lengths, arrangement=fits.index(True))


def _as_rows(mask: Tensor, wanted: tuple[int, ...]) -> Tensor:
    """The mask with four dimensions, each 1 or as wanted; raises SparseError when that cannot be."""
    batch, _, _, tokens = wanted
    shape = tuple(mask.shape)
    shapes = [(1,) * (4 - len(shape)) + shape]  # as torch broadcasts
    if shape == (batch, tokens):
        shapes.insert(0, (batch, 1, 1, tokens))
    if shape == (batch, 1, tokens):
        shapes.append((batch, 1, 1, tokens))
    for padded in shapes:
        if len(padded) == 4 and all(
            have in (1, want) for have, want in zip(padded, wanted, strict=True)
        ):
            return mask.reshape(padded)
    raise SparseError(
        f"The attention mask has shape {shape}; attention over {tokens} tokens needs a mask that "
        f"broadcasts to {list(wanted)} or [batch, tokens]. Check the inputs of the model."
    )


def _keys(rows: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Which keys every query sees, bool ``[b or 1, s]``, and whether that is all the mask says.

    Rows of hidden tokens may be empty. What such a query computes instead does not matter, as long as
    it is finite: it is hidden from everyone as a key, and attention over the valid keys is finite.
    """
    queries = rows.shape[2]
    seen = rows[:, 0, 0] if queries == 1 else rows[:, 0].diagonal(dim1=-2, dim2=-1)
    keys = _visible(seen)
    alike = torch.ones((), dtype=torch.bool, device=rows.device)
    step = max(1, _CHUNK // (rows.shape[0] * rows.shape[1] * tokens))
    for first in range(0, queries, step):
        part = rows[:, :, first : first + step]
        shown = _visible(part)
        same = (shown == keys[:, None, None]).all(dim=-1)
        if queries > 1:
            hidden = ~keys[:, None, first : first + step]
            same |= hidden & ~shown.any(dim=-1)
        alike &= same.all() & _says_only_that(part)
    return keys, alike


def _visible(rows: Tensor) -> Tensor:
    return rows if rows.dtype == torch.bool else rows == 0


def _even(rows: Tensor) -> Tensor:
    """Whether an additive mask adds the same to every score, so that softmax is as without it.

    Chroma's mask does so where the text fills its room; where it does not, it weighs the padding less.
    """
    if rows.dtype == torch.bool:
        return torch.zeros((), dtype=torch.bool, device=rows.device)
    least, most = rows.aminmax()
    return (least == most) & (least > _HIDDEN)


def _says_only_that(rows: Tensor) -> Tensor:
    """Whether every entry shows or hides a key, and none only weighs it."""
    if rows.dtype == torch.bool:
        return torch.ones((), dtype=torch.bool, device=rows.device)
    return ((rows == 0) | (rows <= _HIDDEN)).all()
