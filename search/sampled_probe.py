"""The sampled probe of Video-BLADE (arXiv 2508.10774): block pairs scored by a few tokens of each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.search.token_grid import TokenGrid

# Scores computed at a time: 2 MB, which stay in a CPU's cache; on a GPU enough to fill it.
CPU_CHUNK, GPU_CHUNK = 1 << 19, 1 << 26
_WORD = 0xFFFFFFFF

T = TypeVar("T", int, Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Tokens that stand for their blocks: ``places`` int64 ``[2, h, n, s]``, of queries and of keys.

    ``there`` bool ``[n, s]``: which are samples, where the last block has fewer than s tokens; or None.
    """

    places: Tensor
    there: Tensor | None


def draw(
    tokens: int, block: int, count: int, *, heads: Tensor, seed: tuple[int, int, int]
) -> Samples:
    """`count` tokens of every block of `block` in a sequence of `tokens`, none of them twice.

    A block is cut into `count` stretches, and one token of each is drawn: of as many tokens a better
    likeness than any random set, and nothing is sorted. The draw of a head follows from its number in
    `heads`, int64 ``[h]``, and from `seed` (the user's, the layer, the step) alone: it is the same in
    every process, on every device and when a layer runs again, and no generator is touched.
    """
    device, blocks = heads.device, block_count(tokens, block)
    first = torch.arange(blocks, device=device) * block
    held = (tokens - first).clamp(max=block)[:, None]
    stretch = torch.arange(count, device=device)
    low, high = stretch * held // count, (stretch + 1) * held // count
    state = 0
    for part in seed:
        state = _mixed((state + part * 0x9E3779B1) & _WORD)
    sides = torch.arange(2, device=device)[:, None]
    stream = _mixed((_mixed(2 * heads + sides) + state) & _WORD)[..., None, None]
    number = torch.arange(blocks * count, device=device).view(blocks, count)
    lot = _mixed(_mixed(number) ^ stream)  # 32 random bits
    last = tokens - (blocks - 1) * block
    return Samples(
        places=first[:, None] + low + (lot * (high - low) >> 32),
        there=high > low if last < count else None,
    )


def _mixed(word: T) -> T:
    """A number of 32 bits with its bits mixed (Wellons' lowbias32)."""
    word = word ^ (word >> 16)
    word = (word * 0x7FEB352D) & _WORD
    word = word ^ (word >> 15)
    word = (word * 0x846CA68B) & _WORD
    return word ^ (word >> 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """How block pairs are scored: ``samples`` tokens of every block of ``block``, drawn from ``seed``.

    ``normalised`` as in `block_scores`.
    """

    block: int
    samples: int
    seed: int = 0
    normalised: bool = True

    def scores(
        self,
        q: Tensor,
        k: Tensor,
        grid: TokenGrid,
        *,
        heads: Tensor,
        place: tuple[int, int],
        scale: float,
        lens: Tensor | None = None,
    ) -> Tensor:
        """Scores of the blocks that hold video only, ``[b, h, m, n]``; 0 for all that touch text.

        q, k ``[b, t, h, d]`` laid out as `grid` says; `heads` int64 ``[h]`` their numbers, `place` the
        layer and the step; `lens` int64 ``[b]`` or None: keys at and beyond it are padding.
        """
        lead, trail = grid.text_edges(self.block)
        first = lead * self.block
        last = min(first + grid.video_blocks(self.block) * self.block, grid.tokens)
        count = min(self.samples, self.block)
        samples = draw(last - first, self.block, count, heads=heads, seed=(self.seed, *place))
        scores = block_scores(
            q[:, first:last],
            k[:, first:last],
            samples,
            scale=scale,
            normalised=self.normalised,
            lens=None if lens is None else lens - first,
        )
        return F.pad(scores, (lead, trail, lead, trail))


def block_scores(
    q: Tensor, k: Tensor, samples: Samples, *, scale: float, normalised: bool, lens: Tensor | None
) -> Tensor:
    """The highest weight between the samples of every two blocks: float32 ``[b, h, n, n]``.

    q, k ``[b, t, h, d]`` of the sampled sequence; `lens` int64 ``[b]`` or None: keys at and beyond it
    weigh nothing. With `normalised` a weight is exp(score - log-sum-exp of the query's scores), a
    max-pooled softmax as in the paper; else exp(score - the query's highest), as the released code has
    it. In chunks of query blocks: memory grows with the samples, not with their square.
    """
    blocks, count = samples.places.shape[2:]
    queries = _taken(q, samples.places[0])
    # The first samples of all blocks, then the second ones: their maximum is taken in whole vectors.
    keys = _taken(k, samples.places[1].mT)
    hidden = _hidden(samples, lens)
    limit = CPU_CHUNK if q.device.type == "cpu" else GPU_CHUNK
    step = max(1, limit // (prod(queries.shape[:3]) * count))
    found = []
    for row in range(0, blocks, step):
        part = queries[:, :, row * count : (row + step) * count]
        scores = _product(part, keys, scale)
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        weight = scores.softmax(dim=-1) if normalised else scores
        weight = weight.unflatten(-1, (count, blocks)).amax(dim=-2)
        if not normalised:
            weight = (weight - weight.amax(dim=-1, keepdim=True)).exp_()
        if hidden is not None:  # a query that sees no key at all
            weight = weight.nan_to_num_(0.0)
        weight = weight.unflatten(2, (-1, count))
        if samples.there is not None:
            weight.masked_fill_(~samples.there[row : row + step, :, None], 0.0)
        found.append(weight.amax(dim=3))
    return torch.cat(found, dim=2)


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """The tokens of ``[b, t, h, d]`` at each head's places ``[h, ...]``: ``[b, h, places, d]``."""
    heads = torch.arange(x.shape[2], device=x.device)[:, None]
    return x[:, places.flatten(1), heads]


def _product(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """q k^T * scale in float32, ``[b, h, r, c]``.

    A GPU multiplies 16-bit numbers many times faster than float32, and the products are exact.
    """
    if queries.is_cuda and queries.dtype in {torch.bfloat16, torch.float16}:
        pair = queries.flatten(0, 1), keys.flatten(0, 1).mT
        product: Tensor = torch.bmm(*pair, out_dtype=torch.float32)
        return product.mul_(scale).view(*queries.shape[:3], keys.shape[2])
    return (queries.float() * scale) @ keys.float().mT


def _hidden(samples: Samples, lens: Tensor | None) -> Tensor | None:
    """Which sampled keys take no part: bool ``[b or 1, h or 1, 1, s * n]``; None where all do."""
    found = None if samples.there is None else ~samples.there.mT.flatten()[None, None, None]
    if lens is None:
        return found
    padding = samples.places[1].mT.flatten(1)[None, :, None] >= lens[:, None, None, None]
    return padding if found is None else padding | found
