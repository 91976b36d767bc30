"""Arranged calls: blocks of another token order, outputs in the model's, dense steps untouched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_calls import Recorder, call, tensors
from torch import Tensor

from sparsediff.kernels import SparseError
from sparsediff.search import (
    METHODS,
    AttentionCall,
    Memory,
    PatternTable,
    PlannedHead,
    SparseVDiT,
    Step,
    TokenGrid,
    Window,
)
from sparsediff.search.arrangement import arrangements, order_of
from sparsediff.search.faint_keys import FaintKeys
from sparsediff.search.patterns.pattern import Diagonal, MultiDiagonal
from sparsediff.search.token_order import Permutation, grid_order

BLOCK = 16
GRIDS = {
    "video": TokenGrid(frames=3, height=5, width=7),
    "text first": TokenGrid(frames=2, height=6, width=6, text_before=13),
    "text last": TokenGrid(frames=3, height=5, width=6, text_after=9),
    "both": TokenGrid(frames=1, height=9, width=9, text_before=5, text_after=11),
}
CPU = torch.device("cpu")
SPARSE = Step(index=5, total=10)
# float64 through and through: sums of a hundred terms of size one, in other orders.
EXACT = {"atol": 1e-12, "rtol": 1e-12}


def arranged(
    grid: TokenGrid, order: str, *, choice: int = 0, lens: Tensor | None = None
) -> tuple[AttentionCall, Recorder, list[Tensor]]:
    """A call in one of the arrangements of a grid; float64."""
    qkv = [x.double() for x in tensors(grid)]
    recorder = Recorder()
    arrangement = arrangements(grid, grid_order(order, BLOCK), CPU)[choice]
    found = replace(
        call(grid, SPARSE, recorder, qkv),
        grid=grid if arrangement is None else arrangement.grid,
        arrangement=arrangement,
        kv_lens=lens,
    )
    return found, recorder, qkv


def oracle(found: AttentionCall, pairs: Tensor) -> Tensor:
    """Attention over the block pairs ``[b, h, m, n]`` of the arranged sequence, token by token."""
    tokens = pairs.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    tokens = tokens[..., : found.grid.tokens, : found.grid.tokens]
    if found.kv_lens is not None:
        place = torch.arange(found.grid.tokens)
        tokens = tokens & (place < found.kv_lens[:, None])[:, None, None]
    if found.arrangement is not None:
        back = found.arrangement.tokens.order.argsort()
        tokens = tokens[:, :, back][..., back]
    q, k, v = (x.transpose(1, 2) for x in (found.q, found.k, found.v))
    scores = (q @ k.mT * found.scale).masked_fill(~tokens, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("order", ["raster", "tile", "gilbert"])
def test_arrangements_move_every_token_once(grid: TokenGrid, order: str) -> None:
    choices = arrangements(grid, grid_order(order, BLOCK), CPU)
    assert choices is arrangements(grid, grid_order(order, BLOCK), CPU), "made once"
    assert (choices[0] is None) == (order == "raster")
    whole = torch.arange(grid.tokens)
    for choice in choices:
        moved = order_of(choice)
        if choice is None or moved is None:
            continue
        assert torch.equal(moved.sort().values, whole)
        assert torch.equal(choice.tokens.restored(choice.tokens.moved(whole, 0), 0), whole)
        assert (choice.grid.tokens, choice.grid.video_tokens) == (grid.tokens, grid.video_tokens)
        for place in (0, 17, grid.video_tokens - 1):
            video = choice.grid.position(place)
            assert video is not None, "text comes after the video"
            assert grid.index(*video) == int(moved[place])
    starts = [None if choice is None else order_of(choice)[-1].item() for choice in choices]
    assert len(starts) == len(set(starts)), "the arrangements differ in their last token"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("order", ["raster", "tile", "gilbert"])
@pytest.mark.parametrize("where", GRIDS)
def test_a_sparse_call_is_exact(name: str, order: str, where: str) -> None:
    found, recorder, _ = arranged(GRIDS[where], order)
    method = METHODS[name](density=0.4, block_size=BLOCK, warmup=0.0, token_order=order)
    out = method.attend(found, Memory())
    assert recorder.ran == ["sparse"]
    (mask,) = recorder.masks
    assert mask.density < 1
    torch.testing.assert_close(out, oracle(found, mask.to_dense()), **EXACT)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("order", ["raster", "gilbert"])
def test_gradients_reach_what_a_search_looked_at(name: str, order: str) -> None:
    """Tokens that a search moves with gradients off must not be those that attention computes with."""
    found, recorder, qkv = arranged(GRIDS["text last"], order)
    for x in qkv:
        x.requires_grad_()
    method = METHODS[name](density=0.4, block_size=BLOCK, warmup=0.0, token_order=order)
    method.attend(found, Memory()).sin().sum().backward()
    mine = [x.grad for x in qkv]
    assert recorder.ran == ["sparse"]
    for x in qkv:
        x.grad = None
    oracle(found, recorder.masks[0].to_dense()).sin().sum().backward()
    for gradient, x in zip(mine, qkv, strict=True):
        assert gradient is not None
        assert x.grad is not None
        assert x.grad.abs().max() > 0.1
        # float64, but for what is summed in another order; scores up to 100 pass their error on.
        torch.testing.assert_close(gradient, x.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("choice", [0, 1])
def test_moved_text_and_its_padding(choice: int) -> None:
    grid = GRIDS["both"]
    lens = torch.tensor([grid.tokens - 3, grid.tokens])
    found, recorder, _ = arranged(grid, "gilbert", choice=choice, lens=lens)
    method = METHODS["adaspa"](block_size=BLOCK, density=0.4, warmup=0.0)
    out = method.attend(found, Memory())
    assert recorder.ran == ["sparse"]
    torch.testing.assert_close(out, oracle(found, recorder.masks[0].to_dense()), **EXACT)


def test_mean_keys_are_those_of_arranged_blocks() -> None:
    """Keys and values that are alike within every arranged block are stood in for exactly."""
    found, recorder, _ = arranged(GRIDS["video"], "gilbert")
    back = found.arrangement.tokens.restored
    blocks = -(-found.grid.tokens // BLOCK)

    def blockwise(x: Tensor) -> Tensor:
        return back(x[:, :blocks].repeat_interleave(BLOCK, 1)[:, : found.grid.tokens]).float()

    found = replace(found, q=found.q.float(), k=blockwise(found.k), v=blockwise(found.v))
    method = METHODS["window"](block_size=BLOCK, density=0.3, compensate=True)
    out = method.attend(found, Memory())
    assert recorder.ran == ["sparse"]
    exact = replace(found, q=found.q.double(), k=found.k.double(), v=found.v.double())
    full = torch.ones_like(recorder.masks[0].to_dense())
    # float32 sums of 105 terms of size two.
    torch.testing.assert_close(out.double(), oracle(exact, full), atol=1e-5, rtol=1e-5)
    plain = oracle(exact, recorder.masks[0].to_dense())
    assert float((plain - oracle(exact, full)).abs().max()) > 0.1


@pytest.mark.parametrize("order", ["raster", "tile", "gilbert"])
def test_dense_steps_are_bit_exact(order: str) -> None:
    """The user's attention and the dense step that gives the LSE see the model's own tensors."""
    plain, _, _ = arranged(GRIDS["text first"], "raster")
    found, recorder, _ = arranged(GRIDS["text first"], order)
    assert torch.equal(found.dense(), plain.dense())
    out, lse = found.dense_with_lse()
    expected, native = plain.dense_with_lse()
    assert torch.equal(out, expected)
    moved = order_of(found.arrangement)
    assert torch.equal(lse, native if moved is None else native[..., moved])
    torch.testing.assert_close(found.lse(), lse, atol=1e-6, rtol=1e-6)  # LSEs are float32
    assert recorder.ran == ["dense", "dense"]


def test_dense_with_padding_that_moves() -> None:
    grid = GRIDS["text first"]
    lens = torch.tensor([grid.tokens - 4, grid.tokens - 9])
    found, _, _ = arranged(grid, "raster", choice=1, lens=lens)
    blocks = -(-grid.tokens // BLOCK)
    out, lse = found.dense_with_lse()
    everything = torch.ones(1, 1, blocks, blocks, dtype=torch.bool)
    torch.testing.assert_close(out, oracle(found, everything), **EXACT)
    mass = found.mass(lse, BLOCK).sum(-1)
    rows = torch.full((blocks,), float(BLOCK))
    rows[-1] = grid.tokens - BLOCK * (blocks - 1)
    # Block mass is float32: a row of sixteen queries sums to sixteen within its rounding.
    torch.testing.assert_close(mass, rows.expand_as(mass), atol=1e-4, rtol=0)


@pytest.mark.parametrize("order", ["raster", "gilbert"])
def test_faint_keys_are_in_every_output(order: str) -> None:
    """Padding that counts less instead of being hidden: in the dense step that gives the LSE, too."""
    grid = GRIDS["text first"]
    lens = torch.tensor([grid.tokens - 4, grid.tokens - 9])
    choice = 1 if order == "raster" else 0
    found, recorder, _ = arranged(grid, order, choice=choice, lens=lens)
    found = replace(found, faint=FaintKeys(lengths=lens, least=int(lens.min())))
    place = found.arrangement.tokens.order.argsort()
    full = place < lens[:, None]
    both = full[:, None, :, None] & full[:, None, None, :]
    q, k, v = (x.transpose(1, 2) for x in (found.q, found.k, found.v))
    expected = ((q @ k.mT * found.scale + both.double()).softmax(-1) @ v).transpose(1, 2)
    everything = METHODS["window"](density=1.0, block_size=BLOCK, token_order=order)
    near = {"atol": 2e-6, "rtol": 1e-6}  # the two parts are joined in float32
    torch.testing.assert_close(everything.attend(found, Memory()), expected, **near)
    out, lse = found.dense_with_lse()
    assert recorder.ran == ["sparse", "dense"]
    torch.testing.assert_close(out, expected, **near)
    torch.testing.assert_close(found.lse(), lse)
    hidden = replace(found, faint=None).dense_with_lse()
    assert torch.equal(hidden[1], lse), "the search looks at what is no padding"
    assert float((hidden[0] - expected).abs().max()) > 0.01


def test_tensors_move_once_for_search_and_call(monkeypatch: pytest.MonkeyPatch) -> None:
    found, recorder, _ = arranged(GRIDS["video"], "gilbert")
    moves: list[int] = []
    plain = Permutation.moved

    def counted(self: Permutation, x: Tensor, dim: int = 1) -> Tensor:
        moves.append(dim)
        return plain(self, x, dim)

    monkeypatch.setattr(Permutation, "moved", counted)
    METHODS["adaspa"](warmup=0.0, block_size=BLOCK).attend(found, Memory())
    assert recorder.ran == ["sparse"]
    assert moves == [1, 1, 1], "q, k and v, for the LSE, the mass and the call"
    found.dense()
    assert len(moves) == 3


def test_a_gradient_comes_back_in_the_models_order() -> None:
    found, _, qkv = arranged(GRIDS["both"], "tile")
    values = qkv[2].clone().requires_grad_()
    method = METHODS["window"](density=0.4, block_size=BLOCK)
    weight = torch.randn(values.shape, dtype=torch.float64)
    recorder = Recorder()
    found = replace(found, v=values, recorder=recorder)
    (method.attend(found, Memory()) * weight).sum().backward()
    again = values.detach().clone().requires_grad_()
    mask = recorder.masks[0].to_dense()
    (oracle(replace(found, v=again), mask) * weight).sum().backward()
    torch.testing.assert_close(values.grad, again.grad, **EXACT)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("order", ["tile-16", "gilbert"])
def test_a_window_is_near_in_the_grid(order: str, *, temporal: bool) -> None:
    grid = TokenGrid(frames=4, height=8, width=8, text_after=5, order=order)
    method = Window(temporal=temporal, density=0.25, block_size=BLOCK)
    mask = method.mask(grid, CPU).to_dense()[0, 0]
    middles = grid.positions().double().unflatten(0, (-1, BLOCK)).mean(1)[:, int(temporal) :]
    apart = (middles[:, None] - middles[None]).square().sum(-1)
    blocks = len(middles)
    assert bool(mask[-1].all()), "text is computed in full"
    assert bool(mask[:, -1].all())
    video = mask[:blocks, :blocks]
    assert bool((video.sum(-1) == blocks // 4).all())
    assert bool(video.diagonal().all())
    for row, distance in zip(video, apart, strict=True):
        assert distance[row].max() <= distance[~row].min()


def plan(grid: TokenGrid) -> PatternTable:
    patterns = (Diagonal(half_width=0.3), MultiDiagonal(half_widths=(0.1,), everywhere=True))
    moved = MultiDiagonal(half_widths=(0.1,), everywhere=True, by_place=True)
    heads = tuple(PlannedHead(pattern=p) for p in (*patterns, moved, moved))
    return PatternTable(
        grid=grid, block_size=BLOCK, starts=(0.0,), buckets=((heads,),), density=0.4
    )


def test_a_plan_runs_with_its_text_moved() -> None:
    """Padding may move text behind the video; a head ordered place by place is ordered after that."""
    grid = GRIDS["text first"]
    lens = torch.tensor([grid.tokens - 4, grid.tokens - 9])
    found, recorder, _ = arranged(grid, "raster", choice=1, lens=lens)
    table = plan(found.grid)
    out = SparseVDiT(table=table).attend(found, Memory())
    assert recorder.ran == ["sparse"]
    native = Recorder()
    moved = [found.arrangement.tokens.moved(x) for x in (found.q, found.k, found.v)]
    same = replace(call(found.grid, SPARSE, native, moved), kv_lens=lens)
    expected = SparseVDiT(table=table).attend(same, Memory())
    assert native.ran == ["sparse"]
    assert torch.equal(out, found.arrangement.tokens.restored(expected))


def test_a_plan_has_no_other_order() -> None:
    with pytest.raises(SparseError, match=r"token_order='tile': the patterns of a plan"):
        SparseVDiT(table=plan(GRIDS["video"]), token_order="tile")
