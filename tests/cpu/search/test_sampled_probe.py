"""The sampled probe: which tokens it draws, and its scores against brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sparsediff.search import TokenGrid, sampled_probe
from sparsediff.search.sampled_probe import Probe, block_scores, draw

HEADS = torch.arange(3)
SEED = (0, 2, 5)


def drawn(tokens: int, block: int, count: int, seed: tuple[int, int, int] = SEED) -> Tensor:
    return draw(tokens, block, count, heads=HEADS, seed=seed).places


@pytest.mark.parametrize(("block", "count"), [(16, 16), (16, 5), (64, 16), (128, 32), (7, 3)])
@pytest.mark.parametrize("last", [None, 1, 4])
def test_tokens_of_a_block_are_its_own_and_drawn_once(
    block: int, count: int, last: int | None
) -> None:
    """The last block has `last` tokens, fewer than there are samples of a whole one."""
    tokens = 6 * block + (last or 0)
    samples = draw(tokens, block, count, heads=HEADS, seed=SEED)
    assert samples.places.shape == (2, 3, 6 + (last is not None), count)
    there = samples.there
    assert (there is None) == (last is None or last >= count)
    for side in samples.places:
        for head in side:
            for number, places in enumerate(head):
                kept = places if there is None else places[there[number]]
                held = min(tokens, (number + 1) * block) - number * block
                assert len(kept) == len(set(kept.tolist())) == min(count, held)
                assert int(kept.min()) >= number * block
                assert int(kept.max()) < number * block + held
                assert int(places.max()) < tokens, "what is no sample is still a token"


def test_every_token_is_as_likely() -> None:
    """4000 draws of one in four: 1000 of each token, give or take five standard deviations of 27."""
    seen = torch.zeros(16)
    for layer in range(250):
        places = drawn(16 * 8, 16, 4, (0, layer, 0))[0, :2] % 16
        seen += places.flatten().bincount(minlength=16)
    assert int(seen.sum()) == 250 * 2 * 8 * 4
    assert float((seen - 1000).abs().max()) < 5 * 27.4


def test_draws_differ_by_side_head_block_and_seed_and_repeat() -> None:
    first = drawn(640, 64, 16)
    assert torch.equal(first, drawn(640, 64, 16))
    blocks = first % 64
    assert not torch.equal(blocks[0], blocks[1]), "queries and keys"
    assert not torch.equal(blocks[:, 0], blocks[:, 1]), "heads"
    assert not torch.equal(blocks[:, :, 0], blocks[:, :, 1]), "blocks"
    others = [drawn(640, 64, 16, seed) for seed in [(1, 2, 5), (0, 3, 5), (0, 2, 6), (0, 5, 2)]]
    for one in (first, *others):
        assert sum(torch.equal(one, other) for other in (first, *others)) == 1


def test_a_head_is_drawn_by_its_number_and_no_generator_is_touched() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    whole = draw(100, 16, 5, heads=torch.arange(4), seed=SEED).places
    part = draw(100, 16, 5, heads=torch.tensor([3, 1]), seed=SEED).places
    assert torch.equal(part, whole[:, [3, 1]])
    assert torch.equal(torch.get_rng_state(), before)


def brute_force(
    q: Tensor, k: Tensor, places: Tensor, there: Tensor | None, *, normalised: bool, **rest: Any
) -> Tensor:
    """Token by token in float64."""
    (b, _, h, _), (n, _) = q.shape, places.shape[2:]
    lens = rest["lens"]
    out = torch.zeros(b, h, n, n, dtype=torch.float64)
    for item in range(b):
        for head in range(h):
            kept = [
                [
                    [int(x) for i, x in enumerate(side[head, m]) if there is None or there[m, i]]
                    for m in range(n)
                ]
                for side in places
            ]
            keys = [[x for x in block if lens is None or x < int(lens[item])] for block in kept[1]]
            for m in range(n):
                for token in kept[0][m]:
                    scores = [
                        (k[item, block, head].double() @ q[item, token, head].double())
                        * rest["scale"]
                        for block in keys
                    ]
                    everything = torch.cat(scores)
                    base = everything.logsumexp(0) if normalised else everything.max()
                    for number, block in enumerate(scores):
                        if len(block):
                            weight = (block.max() - base).exp()
                            out[item, head, m, number] = max(out[item, head, m, number], weight)
    return out


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("tokens", "count"), [(64, 16), (64, 5), (67, 5), (67, 16)])
@pytest.mark.parametrize("lens", [None, [67, 41]])
def test_scores_equal_brute_force(
    normalised: bool, tokens: int, count: int, lens: list[int] | None, monkeypatch: Any
) -> None:
    """Whole and ragged, all tokens and some, padded; one query block at a time and all at once.

    float32 scores of 8 products up to 10 are off by 1e-6, weights of at most 1 by that share.
    """
    noise = torch.Generator().manual_seed(1)
    q, k = (2 * torch.randn(2, tokens, 3, 8, generator=noise) for _ in range(2))
    samples = draw(tokens, 16, count, heads=HEADS, seed=SEED)
    padding = None if lens is None else torch.tensor(lens)
    rest: dict[str, Any] = {"scale": 0.35, "normalised": normalised, "lens": padding}
    found = block_scores(q, k, samples, **rest)
    right = brute_force(q, k, samples.places, samples.there, **rest)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), right, atol=1e-5, rtol=0)
    monkeypatch.setattr(sampled_probe, "CPU_CHUNK", 1)
    torch.testing.assert_close(block_scores(q, k, samples, **rest), found, atol=1e-6, rtol=0)


def test_the_released_scores_lack_the_denominator() -> None:
    """They are the others times the sum of a query's weights where a block has one query."""
    noise = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 48, 3, 8, generator=noise) for _ in range(2))
    samples = draw(48, 8, 1, heads=HEADS, seed=SEED)
    paper, released = (
        block_scores(q, k, samples, scale=1.0, normalised=x, lens=None) for x in (True, False)
    )
    torch.testing.assert_close(released, paper / paper.amax(-1, keepdim=True))
    assert not torch.equal(released, paper)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (0, 11), (20, 3)])
def test_blocks_with_text_are_not_looked_at(before: int, after: int) -> None:
    grid = TokenGrid(frames=3, height=8, width=8, text_before=before, text_after=after)
    noise = torch.Generator().manual_seed(2)
    q, k = (torch.randn(1, grid.tokens, 3, 8, generator=noise) for _ in range(2))
    text = grid.text_blocks(16)
    q[:, :before], k[:, grid.tokens - after :] = 1e6, 1e6
    scores = Probe(block=16, samples=16).scores(q, k, grid, heads=HEADS, place=(0, 0), scale=0.35)
    assert scores.shape == (1, 3, len(text), len(text))
    assert not scores[:, :, text].any()
    assert not scores[..., text].any()
    video = scores[:, :, ~text][..., ~text]
    assert bool((video > 0).all())
    assert bool((video <= 1).all())


def test_no_tensor_of_all_sampled_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long sequence, the largest product is a share of the sampled pairs."""
    sizes = []
    true = sampled_probe._product

    def product(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
        sizes.append(queries.shape[2] * keys.shape[2] * queries.shape[1])
        return true(queries, keys, scale)

    monkeypatch.setattr(sampled_probe, "_product", product)
    monkeypatch.setattr(sampled_probe, "CPU_CHUNK", 1 << 18)
    q = torch.randn(1, 16 * 1024, 2, 4)
    samples = draw(16 * 1024, 64, 8, heads=torch.arange(2), seed=SEED)
    block_scores(q, q, samples, scale=0.5, normalised=True, lens=None)
    assert sum(sizes) == 2 * (256 * 8) ** 2
    assert max(sizes) <= 1 << 18
