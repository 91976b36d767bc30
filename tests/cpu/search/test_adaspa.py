"""AdaSpa against brute force on the materialised attention map, and its rules one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_calls import Recorder, call, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels import SparseError, block_mass, dense_attention_lse
from sparsediff.search import AdaSpa, Memory, RandomBlocks, Step, TokenGrid, Window
from sparsediff.search.selection import RankedBlocks, head_budgets, keys_per_row


def brute_force(q: torch.Tensor, k: torch.Tensor, method: AdaSpa, grid: TokenGrid) -> torch.Tensor:
    """The paper's selection, written with loops over the whole float64 attention map."""
    n, block = grid.tokens, method.block_size
    weights = torch.einsum("bshd,bthd->bhst", q.double(), k.double()) * q.shape[-1] ** -0.5
    weights = weights.softmax(-1)
    edges = [(i, min(i + block, n)) for i in range(0, n, block)]
    is_text = [any(grid.position(t) is None for t in range(a, e)) for a, e in edges]
    video = [j for j, text in enumerate(is_text) if not text]
    base = keys_per_row(method.density, len(video))
    kept = torch.zeros(q.shape[0], q.shape[2], len(edges), len(edges), dtype=torch.bool)

    def choose(b: int, h: int, keep: int) -> float:
        held = 0.0
        for m, (a, e) in enumerate(edges):
            mass = [float(weights[b, h, a:e, c:d].sum()) for c, d in edges]
            best = sorted(video, key=lambda j: -mass[j])[:keep]
            for j in range(len(edges)):
                kept[b, h, m, j] = j in best or is_text[j] or is_text[m]
            held += sum(mass[j] for j in range(len(edges)) if j in best or is_text[j])
        return held / n

    for b in range(q.shape[0]):
        recall = [choose(b, h, base) for h in range(q.shape[2])]
        if not method.head_budgets:
            continue
        order = sorted(range(len(recall)), key=lambda h: -recall[h])
        n_high = min(sum(r > method.recall_threshold for r in recall), len(recall) // 2)
        low = max(1, int(base / 2 + 0.5))
        moved = min(base - low, len(video) - base)
        for h in order[:n_high]:
            choose(b, h, base - moved)
        for h in order[len(order) - n_high :] if n_high else []:
            choose(b, h, base + moved)
    return kept


GRIDS = [
    TokenGrid(frames=3, height=4, width=8),
    TokenGrid(frames=3, height=4, width=7, text_after=5),
    TokenGrid(frames=2, height=5, width=7, text_before=11),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("budgets", [True, False])
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_first_search_equals_brute_force(grid: TokenGrid, budgets: bool, density: float) -> None:
    method = AdaSpa(
        density=density, block_size=8, head_budgets=budgets, recall_threshold=0.5, warmup=0.5
    )
    recorder, memory, qkv = Recorder(), Memory(), tensors(grid)
    qkv[0][:, :, 0] *= 3  # heads of different sharpness, so that the budgets differ
    qkv[0][:, :, 3] *= 0.1
    step = Step(index=1, total=4, progress=0.25)
    out = method.attend(call(grid, step, recorder, qkv), memory)
    assert recorder.ran == ["dense"]
    torch.testing.assert_close(out, dense_attention_lse(*qkv)[0])
    expected = brute_force(qkv[0], qkv[1], method, grid)
    assert memory.mask is not None
    assert torch.equal(memory.mask.to_dense(), expected)
    if budgets:
        assert len({round(float(d), 4) for d in memory.mask.head_density[0]}) > 1


def test_life_of_a_run() -> None:
    grid, recorder, memory = GRIDS[0], Recorder(), Memory()
    method = AdaSpa(density=0.3, block_size=8, warmup=0.2, refresh=(0.6,))
    masks = []
    for index in range(10):
        step = Step(index=index, total=10, progress=index / 10)
        method.attend(call(grid, step, recorder, tensors(grid, seed=index)), memory)
        masks.append(memory.mask)
    assert recorder.ran == ["dense"] * 2 + ["sparse"] * 8
    assert masks[0] is None
    assert masks[1] is not None
    assert all(mask is masks[1] for mask in masks[2:5])
    assert masks[5] is not masks[1], "the sixth of ten steps refreshes"
    assert all(mask is masks[5] for mask in masks[6:])
    assert memory.lse is None, "the cache is freed after the last refresh"


def test_refresh_uses_the_cached_lse() -> None:
    grid, recorder, memory = GRIDS[0], Recorder(), Memory()
    method = AdaSpa(density=0.3, block_size=8, warmup=0.2, refresh=(0.6,), head_budgets=False)
    old, new = tensors(grid, seed=0), tensors(grid, seed=1)
    method.attend(call(grid, Step(index=1, total=10, progress=0.1), recorder, old), memory)
    lse = memory.lse
    assert lse is not None
    torch.testing.assert_close(lse, dense_attention_lse(*old)[1])
    method.attend(call(grid, Step(index=5, total=10, progress=0.5), recorder, new), memory)
    mass = block_mass(new[0], new[1], lse, block_size=8)
    expected = method.mask(mass, grid)
    assert memory.mask is not None
    assert torch.equal(memory.mask.to_dense(), expected.to_dense())


def test_skipped_search_step_is_made_up_for() -> None:
    """A cache may skip the layer at the search step; the first sparse call then searches."""
    grid, recorder, memory = GRIDS[0], Recorder(), Memory()
    AdaSpa(block_size=8).attend(
        call(grid, Step(index=7, total=10, progress=0.7), recorder, tensors(grid)), memory
    )
    assert recorder.ran == ["sparse"]
    assert memory.marks == 1


@given(
    st.integers(1, 8),
    st.integers(2, 40),
    st.floats(0.01, 1.0),
    st.floats(0.1, 0.9),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_budgets_keep_the_mean(
    heads: int, columns: int, density: float, threshold: float, seed: int
) -> None:
    recall = torch.rand(3, heads, generator=torch.Generator().manual_seed(seed))
    keep = keys_per_row(density, columns)
    budgets = head_budgets(recall, keep, columns, threshold)
    assert budgets.min() >= 1
    assert budgets.max() <= columns
    assert (budgets.sum(dim=1) == keep * heads).all()
    order = recall.argsort(dim=1, descending=True)
    assert (budgets.gather(1, order).diff(dim=1) >= 0).all(), "more recall never gets more blocks"


@given(st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=30)
def test_recall_grows_with_the_budget(columns: int, keep: int) -> None:
    mass = torch.rand(1, 2, columns, columns, generator=torch.Generator().manual_seed(columns))
    grid = TokenGrid(frames=1, height=1, width=columns)

    def recall(keep: int) -> torch.Tensor:
        return RankedBlocks.of(mass, keep, grid, 1).recall(mass, keep)

    assert (recall(min(keep + 1, columns)) >= recall(min(keep, columns)) - 1e-6).all()
    torch.testing.assert_close(recall(columns), torch.ones(1, 2))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kind", ["adaspa", "window", "random"])
def test_density_and_text(grid: TokenGrid, kind: str) -> None:
    """Every row of the video keeps round(density * video columns) blocks, and all text."""
    qkv = tensors(grid)
    if kind == "adaspa":
        method: Any = AdaSpa(density=0.4, block_size=8, head_budgets=False)
        mass = block_mass(qkv[0], qkv[1], dense_attention_lse(*qkv)[1], block_size=8)
        mask = method.mask(mass, grid)
    elif kind == "window":
        mask = Window(density=0.4, block_size=8).mask(grid, torch.device("cpu"))
    else:
        mask = RandomBlocks(density=0.4, block_size=8).mask(grid, 4, 0)
    dense, text = mask.to_dense(), grid.text_blocks(8)
    assert dense[:, :, text].all()
    assert dense[:, :, :, text].all()
    video = dense[:, :, ~text][..., ~text]
    assert (video.sum(-1) == keys_per_row(0.4, int((~text).sum()))).all()


def test_random_is_seeded_and_window_is_central() -> None:
    grid = GRIDS[0]
    first, again = (RandomBlocks(block_size=8, seed=3).mask(grid, 4, 1) for _ in range(2))
    other = RandomBlocks(block_size=8, seed=4).mask(grid, 4, 1)
    assert torch.equal(first.to_dense(), again.to_dense())
    assert not torch.equal(first.to_dense(), other.to_dense())
    band = Window(density=0.25, block_size=8).mask(grid, torch.device("cpu")).to_dense()[0, 0]
    assert band.diagonal().all()
    assert band.int().sum(1).tolist() == [3] * 12
    assert not band[0, 6:].any()


def test_a_temporal_window_keeps_the_own_place_in_every_frame() -> None:
    grid = TokenGrid(frames=4, height=4, width=8)  # a frame is 4 blocks of 8
    method = Window(density=0.25, block_size=8, temporal=True)
    kept = method.mask(grid, torch.device("cpu")).to_dense()[0, 0]
    for row in range(16):
        assert kept[row].nonzero()[:, 0].tolist() == [row % 4 + 4 * frame for frame in range(4)]


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(SparseError, match="Did you mean 'refresh'"):
        AdaSpa().with_options(refesh=(0.5,))
    assert AdaSpa().with_options(density=0.5).density == 0.5
    assert AdaSpa().to_dict()["name"] == "adaspa"


def test_a_sampled_search_finds_nearly_the_same_blocks() -> None:
    """On smooth queries, as a trained model's are, every fourth one tells nearly all."""
    grid = TokenGrid(frames=4, height=8, width=8)
    q, k, v = tensors(grid)
    q = q.unflatten(1, (-1, 8)).mean(dim=2).repeat_interleave(8, dim=1) * 3 + 0.1 * q
    recorder, masks = Recorder(), []
    for stride in (1, 4):
        method = AdaSpa(block_size=16, density=0.3, warmup=0.0, query_stride=stride)
        memory = Memory()
        step = Step(index=0, total=4, progress=0.0)
        method.attend(call(grid, step, recorder, [q, k, v]), memory)
        assert memory.mask is not None
        masks.append(memory.mask.to_dense())
    same = float((masks[0] & masks[1]).sum() / masks[0].sum())
    assert 0.9 <= same < 1.0, "fewer queries were looked at, and it hardly matters"
    with pytest.raises(SparseError, match="divides the 16 queries"):
        AdaSpa(block_size=16, query_stride=5)
