"""From the attention mask a model passes to the number of valid keys, where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.mask_reading import MaskReading, even
from sparsediff.search.faint_keys import FaintKeys

OTHER = "the attention mask is not a key-padding mask"
HOLE = "the attention mask hides keys between valid ones"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPadding:
    """What a padding mask says: ``lengths``, int64 ``[b]`` valid keys, or None when it hides no key.

    ``arrangement``: in which of the orders asked for the valid keys come first. ``faint``: the others
    are not hidden, but weighed less.
    """

    lengths: Tensor | None
    arrangement: int = 0
    faint: FaintKeys | None = None


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

    Product masks of ones and zeros that are added weigh the padding instead of hiding it (`FaintKeys`).

    Gives a reason instead when the mask says anything else: such a call has to run dense. Synchronises
    a GPU once. Raises SparseError when the mask does not fit attention of [batch, heads, tokens,
    tokens] at all, or hides every key of a batch item.
    """
    rows = _as_rows(mask, (batch, heads, tokens, tokens))
    if rows.shape[3] != tokens or not (rows.dtype == torch.bool or rows.is_floating_point()):
        return OTHER
    readings = [MaskReading.of(rows, batch, orders)]
    if rows.dtype != torch.bool and rows.shape[2] > 1:
        readings.append(MaskReading.of(rows, batch, orders, faint=True))
    # One read for all answers: a GPU is waited for once.
    answers = torch.cat([even(rows).long()[None], *(x.facts for x in readings)]).tolist()
    if answers[0]:
        return KeyPadding(lengths=None)
    each = 2 + len(orders)
    for number, reading in enumerate(readings):
        alike, least, *fits = answers[1 + each * number : 1 + each * (number + 1)]
        if alike and (least or number == 0):
            return _padding(reading.lengths, least, fits, tokens, faint=number == 1)
    return OTHER


def _padding(
    lengths: Tensor, least: int, fits: Sequence[int], tokens: int, *, faint: bool
) -> KeyPadding | str:
    if not least:
        raise SparseError(
            f"The attention mask hides all {tokens} keys of a batch item; at least one must be valid. "
            f"Check the inputs of the model."
        )
    if least == tokens:
        return KeyPadding(lengths=None)
    if not any(fits):
        return HOLE
    return KeyPadding(
        lengths=lengths,
        arrangement=fits.index(1),
        faint=FaintKeys(lengths=lengths, least=least) if faint else None,
    )


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
