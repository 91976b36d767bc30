"""BladeASA: which blocks it chooses, and its outputs and gradients against brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_calls import Recorder, call, tensors
from torch import Tensor

from sparsediff.kernels import SparseError
from sparsediff.search import AttentionCall, BladeASA, Memory, Step, TokenGrid
from sparsediff.search.arrangement import arrangements
from sparsediff.search.head_share import HeadShare
from sparsediff.search.selection import energy_budgets, keys_per_row

BLOCK = 16
STEP = Step(index=3, total=8)
GRIDS = {
    "ragged": TokenGrid(frames=3, height=7, width=10),
    "text last": TokenGrid(frames=3, height=8, width=8, text_after=21),
    "text first": TokenGrid(frames=3, height=8, width=8, text_before=21),
}
EVERYTHING = TokenGrid(frames=1, height=4, width=4, text_before=9, text_after=9)


def asked(grid: TokenGrid, *, step: Step = STEP, layer: int = 0) -> tuple[AttentionCall, Recorder]:
    """A call whose queries look near and far, so that rows need different numbers of blocks."""
    q, k, v = tensors(grid)
    places = torch.arange(grid.tokens)[None, :, None, None]
    wave = torch.cat([(places / 40).sin(), (places / 40).cos()], dim=-1).expand(2, -1, 4, -1)
    q[..., :2], k[..., :2] = 5 * wave, 3 * wave
    q *= torch.tensor([0.2, 0.6, 1.0, 2.0])[:, None]  # heads from even to sharp
    recorder = Recorder()
    return call(grid, step, recorder, [q, k, v], layer=layer), recorder


def chosen(method: BladeASA, found: AttentionCall) -> Tensor:
    """Its block map ``[b, h, m, n]``."""
    recorder = Recorder()
    method.attend(replace(found, recorder=recorder), Memory())
    assert recorder.ran == ["sparse"]
    return recorder.masks[0].to_dense()


def exact_scores(found: AttentionCall) -> Tensor:
    """Max-pooled softmax over every pair of tokens of the video's blocks, float64, text 0."""
    q, k = (x.double() for x in (found.q, found.k))
    text = found.grid.text_blocks(BLOCK)
    block = torch.arange(found.grid.tokens) // BLOCK
    outside = text[block]
    scores = torch.einsum("bshd,bthd->bhst", q, k) * found.scale
    weights = scores.masked_fill(outside, -torch.inf).softmax(-1)
    blocks = len(text)
    pooled = torch.zeros(*weights.shape[:2], blocks, blocks, dtype=torch.float64)
    for m in range(blocks):
        for n in range(blocks):
            pair = weights[:, :, block == m][..., block == n]
            pooled[:, :, m, n] = pair.amax(dim=(-2, -1))
    return pooled.masked_fill(text, 0.0).masked_fill(text[:, None], 0.0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("energy", [0.5, 0.8, 0.95])
def test_with_all_tokens_the_choice_is_exact(grid: TokenGrid, energy: float) -> None:
    """The fewest best blocks that hold the energy: one fewer would not, which the released code keeps.

    Every row is checked, and that the threshold decides in many of them.
    """
    method = BladeASA(
        density=0.8, min_keep=0.1, energy=energy, block_size=BLOCK, sample_tokens=BLOCK
    )
    found, _ = asked(grid)
    pairs, scores = chosen(method, found), exact_scores(found)
    text = grid.text_blocks(BLOCK)
    assert bool(pairs[:, :, text].all())
    assert bool(pairs[..., text].all())
    video = pairs[:, :, ~text][..., ~text]
    ranked = scores[:, :, ~text][..., ~text]
    columns = grid.video_blocks(BLOCK)
    least, most = keys_per_row(0.1, columns), keys_per_row(0.8, columns)
    assert 1 <= least < most < columns
    decided = 0
    for row, score in zip(video.flatten(0, 2), ranked.flatten(0, 2), strict=True):
        count = int(row.sum())
        assert least <= count <= most
        held, left = score[row], score[~row]
        assert float(held.min()) >= float(left.max()) * (1 - 1e-5), "the best ones are kept"
        share = float(held.sum() / score.sum())
        fewer = float((held.sum() - held.min()) / score.sum())
        if count < most:
            assert share >= energy - 1e-5
        if count > least:
            assert fewer < energy + 1e-5, "one block fewer would have done"
        decided += least < count < most
    assert decided > 0.1 * len(video.flatten(0, 2))


@pytest.mark.parametrize(
    ("energy", "least", "wanted"),
    [(0.5, 1, 1), (0.51, 1, 2), (0.7, 1, 2), (0.75, 1, 2), (0.76, 1, 3), (0.9, 1, 4), (1.0, 1, 5)],
)
def test_the_smallest_count_that_reaches_the_energy(energy: float, least: int, wanted: int) -> None:
    """Sixteenths add up exactly: 8, 12, 14, 15, and 16 of 16."""
    scores = torch.tensor([8.0, 4, 2, 1, 1])[None, None, None] / 16
    total = torch.ones(1, 1, 1)
    assert energy_budgets(scores, total, energy, least).tolist() == [[[wanted]]]


def test_budgets_stay_between_least_and_what_is_listed() -> None:
    scores = torch.tensor([[[[8.0, 4, 2]], [[1.0, 1, 1]]]])
    total = torch.tensor([[[8.0], [30.0]]])
    assert energy_budgets(scores, total, 0.5, 2).tolist() == [[[2], [3]]]
    assert energy_budgets(scores, total, 0.5, 7).tolist() == [[[3], [3]]]
    nothing = torch.zeros(1, 1, 1, 4)
    assert energy_budgets(nothing, nothing.sum(-1), 0.9, 1).tolist() == [[[1]]]


def test_caps_and_floors_bind() -> None:
    found, _ = asked(GRIDS["text last"])
    columns = found.grid.video_blocks(BLOCK)
    text = found.grid.text_blocks(BLOCK)

    def counts(**options: Any) -> Tensor:
        pairs = chosen(BladeASA(block_size=BLOCK, **options), found)
        return pairs[:, :, ~text][..., ~text].sum(-1)

    assert set(counts(density=0.3, energy=1.0).flatten().tolist()) == {keys_per_row(0.3, columns)}
    assert set(counts(density=0.5, min_keep=0.25, energy=1e-6).flatten().tolist()) == {3}
    assert set(counts(density=0.2, min_keep=0.5).flatten().tolist()) == {keys_per_row(0.2, columns)}
    everything = counts(density=1.0, energy=0.6)
    assert len(everything.unique()) > 3, "rows differ"
    assert float(everything[:, 3].float().mean()) < float(everything[:, 0].float().mean())


def test_all_text_is_computed_whole() -> None:
    found, recorder = asked(EVERYTHING)
    out = BladeASA(block_size=BLOCK).attend(found, Memory())
    assert recorder.masks[0].density == 1
    torch.testing.assert_close(out, found.user_dense(), atol=1e-5, rtol=1e-5)


def test_the_choice_repeats_and_differs_by_layer_step_and_seed() -> None:
    method = BladeASA(density=0.3, block_size=BLOCK, sample_tokens=4)
    found, _ = asked(GRIDS["ragged"])
    later, _ = asked(GRIDS["ragged"], step=Step(index=4, total=8))
    with torch.no_grad():
        first = chosen(method, found)
        assert torch.equal(first, chosen(method, found))
        others = [
            chosen(method, asked(GRIDS["ragged"], layer=1)[0]),
            chosen(method, later),
            chosen(method.with_options(seed=1), found),
        ]
    assert all(not torch.equal(first, other) for other in others)
    # A checkpointed layer runs again when the step is another.
    assert torch.equal(chosen(method, found), chosen(method, later))
    # Nor does a model draw anew whose steps are only told apart by their timesteps.
    bare, moved = (asked(GRIDS["ragged"], step=Step(index=i))[0] for i in (0, 4))
    with torch.no_grad():
        assert torch.equal(chosen(method, bare), chosen(method, moved))
    # Which of the tokens are looked at does not matter where all of them are.
    whole = method.with_options(sample_tokens=BLOCK)
    assert torch.equal(chosen(whole, found), chosen(whole.with_options(seed=1), found))


def test_released_scores_are_the_only_difference() -> None:
    """Same draw, same rule: told the other scores, each chooses what the other does."""
    paper = BladeASA(density=0.4, energy=0.7, block_size=BLOCK, sample_tokens=5)
    released = paper.with_options(score="released")
    found, _ = asked(GRIDS["text first"])
    assert not torch.equal(chosen(paper, found), chosen(released, found))
    scores = torch.rand(1, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    one, other = (method.mask(scores, found.grid) for method in (paper, released))
    assert torch.equal(one.to_dense(), other.to_dense())
    # With one query of each block the denominator is a factor of its row, and changes nothing.
    assert torch.equal(
        chosen(paper.with_options(sample_tokens=1), found),
        chosen(released.with_options(sample_tokens=1), found),
    )


def test_a_head_chooses_the_same_in_any_process() -> None:
    method = BladeASA(density=0.4, block_size=BLOCK, sample_tokens=4)
    found, _ = asked(GRIDS["text last"])
    whole = chosen(method, found)
    for numbers in ([2, 0], [1, 3]):
        shares = [[2, 0], [1, 3]]
        share = HeadShare.of(shares, shares.index(numbers), "cpu", lambda x: x[None])
        part = replace(
            found,
            q=found.q[:, :, numbers],
            k=found.k[:, :, numbers],
            v=found.v[:, :, numbers],
            share=share,
        )
        assert torch.equal(chosen(method, part), whole[:, numbers])


def test_hidden_keys_are_never_chosen_for_their_score() -> None:
    found, _ = asked(GRIDS["ragged"])
    found = replace(found, k=found.k.clone(), kv_lens=torch.tensor([210, 90]))
    found.k[1, 90:] = 1e4
    pairs = chosen(BladeASA(density=0.3, block_size=BLOCK), found)
    assert not pairs[1, ..., 6:].any(), "blocks beyond token 96 are padding"
    assert bool(pairs[0, ..., 6:].any())


def oracle(qkv: list[Tensor], found: AttentionCall, pairs: Tensor, method: BladeASA) -> Tensor:
    """One softmax per query, in the arranged order, over chosen keys and stand-ins for others."""
    order = None if found.arrangement is None else found.arrangement.tokens.order
    q, k, v = (x.transpose(1, 2) if order is None else x[:, order].transpose(1, 2) for x in qkv)
    tokens = q.shape[2]
    keep = pairs.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)[..., :tokens, :tokens]
    bias = torch.where(keep, 0.0, -torch.inf).double()
    window = BLOCK if method.compensate else method.global_window
    keys, values = k, v
    if window is not None:
        group = torch.arange(tokens) // window
        member = torch.nn.functional.one_hot(group).T.double()
        count = member.sum(1)
        mean = member / count[:, None]
        extra = count.log().expand(*q.shape[:3], -1)
        if method.compensate:
            dropped = ~pairs.repeat_interleave(BLOCK, 2)[:, :, :tokens]
            extra = extra.masked_fill(~dropped, -torch.inf)
        keys, values = torch.cat([k, mean @ k], dim=2), torch.cat([v, mean @ v], dim=2)
        bias = torch.cat([bias, extra], dim=-1)
    out = ((q @ keys.mT * found.scale + bias).softmax(-1) @ values).transpose(1, 2)
    return out if order is None else out[:, order.argsort()]


METHOD = BladeASA(density=0.4, block_size=BLOCK, sample_tokens=6, energy=0.8)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("order", ["raster", "gilbert"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize(
    "options", [{}, {"global_window": 10}, {"global_window": 7}, {"compensate": True}], ids=str
)
def test_outputs_and_gradients_with_the_choice_held_fixed(
    options: dict[str, Any], grid: TokenGrid, order: str, backend: str
) -> None:
    """float32 against float64: scores up to 50 are off by 1e-5, and gradients sum 200 of them."""
    method = METHOD.with_options(token_order=order, **options)
    found, recorder = asked(grid)
    arrangement = arrangements(grid, order, torch.device("cpu"))[0]
    mine = [x.clone().requires_grad_() for x in (found.q, found.k, found.v)]
    found = replace(
        found,
        q=mine[0],
        k=mine[1],
        v=mine[2],
        arrangement=arrangement,
        grid=grid if arrangement is None else arrangement.grid,
        backend=backend,
    )
    out = method.attend(found, Memory())
    assert recorder.ran == ["sparse"]
    assert not recorder.masks[0].counts.requires_grad
    pairs = recorder.masks[0].to_dense()
    assert 0.2 < float(pairs.float().mean()) < 0.8
    right = [x.detach().double().requires_grad_() for x in mine]
    exact = oracle(right, found, pairs, method)
    torch.testing.assert_close(out.double(), exact, atol=5e-5, rtol=0)
    out.sin().sum().backward()
    exact.sin().sum().backward()
    for x, y in zip(mine, right, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        assert float(y.grad.abs().max()) > 0.1
        torch.testing.assert_close(x.grad.double(), y.grad, atol=2e-4, rtol=1e-4)


def test_global_tokens_make_a_difference_and_are_counted_once() -> None:
    found, _ = asked(GRIDS["ragged"])
    plain = METHOD.attend(found, Memory())
    joined = METHOD.with_options(global_window=10).attend(found, Memory())
    assert float((plain - joined).abs().max()) > 0.01
    # Where every token is its own window and all blocks are chosen, each key counts exactly twice.
    everything = METHOD.with_options(density=1.0, min_keep=1.0, global_window=1)
    out = everything.attend(found, Memory())
    torch.testing.assert_close(out, found.user_dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"energy": 0}, "energy=0"),
        ({"energy": 1.5}, "energy=1.5"),
        ({"min_keep": "0.1"}, "min_keep='0.1'"),
        ({"min_keep": True}, "min_keep=True"),
        ({"sample_tokens": 0}, "sample_tokens=0"),
        ({"sample_tokens": None}, "sample_tokens=None"),
        ({"global_window": 0}, "global_window=0"),
        ({"global_window": 2.5}, "global_window=2.5"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"score": "max"}, "score='max'"),
        ({"density": 0}, "density=0"),
        ({"compensate": True, "global_window": 30}, "leave one of them off"),
    ],
)
def test_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SparseError, match=words):
        BladeASA(**options)


def test_released_settings() -> None:
    wan, cog = BladeASA.released("wan"), BladeASA.released("cogvideox")
    assert (wan.block_size, wan.sample_tokens, wan.score) == (128, 32, "released")
    assert (wan.density, wan.global_window) == (0.17, 30)
    assert (cog.density, cog.global_window) == (0.10, 15)
    assert (wan.energy, wan.min_keep, wan.token_order, wan.warmup) == (0.95, 0.05, "gilbert", 0.0)
    with pytest.raises(SparseError, match="'wan' and 'cogvideox'"):
        BladeASA.released("flux")
    assert BladeASA().with_options(**{k: v for k, v in wan.to_dict().items() if k != "name"}) == wan
