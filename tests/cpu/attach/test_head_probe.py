"""HeadProbe: recall and maps against a reference of its own, through real pipelines."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_pipelines import FAMILIES, Family

from sparsediff.head_probe import HeadProbe, is_looked_at, map_side
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search import AttentionCall, Step
from sparsediff.search.arrangement import order_of
from sparsediff.search.recall import recall

STEPS, BLOCK = 3, 16
ROUNDING = 2.0**-24  # of a float32


class Watch:
    """The probe, and beside it the calls that it looked at."""

    def __init__(self, layers: int) -> None:
        self.probe = HeadProbe(layers=layers, block_size=BLOCK)
        self.seen: dict[tuple[int, int], tuple[AttentionCall, BlockMask | None]] = {}

    def __call__(self, call: AttentionCall, mask: BlockMask | None) -> None:
        self.seen.setdefault((call.layer, call.step.index), (call, mask))
        self.probe(call, mask)


def run(family: Family, **options: Any) -> tuple[Watch, torch.Tensor, Any]:
    pipe = family.build()
    session = pipe.enable_sparse_attention(block_size=BLOCK, gate=False, **options)
    session.observer = watch = Watch(len(session.layers))
    out = family.run(pipe, steps=STEPS)
    return watch, out, session.report()


def weights(call: AttentionCall) -> torch.Tensor:
    """Dense attention of the last batch item, float64 ``[h, s, s]``, in the order of the mask."""
    order = order_of(call.arrangement)
    q, k = (x[-1].double() for x in (call.q, call.k))
    if order is not None:
        q, k = q[order], k[order]
    scores = torch.einsum("shd,thd->hst", q, k) * call.scale
    if call.kv_lens is not None:
        scores[..., int(call.kv_lens[-1]) :] = -torch.inf
    return scores.softmax(dim=-1)


def by_token(mask: BlockMask, heads: int) -> torch.Tensor:
    kept = mask.to_dense()[-1].expand(heads, -1, -1)
    wide = kept.repeat_interleave(BLOCK, dim=1).repeat_interleave(BLOCK, dim=2)
    return wide[:, : mask.q_len, : mask.kv_len]


def bound(call: AttentionCall) -> float:
    """How far float32 may be off: every score and LSE by a dot product, every sum by its length.

    A weight is exp(score - lse), so their absolute errors are its relative one; a recall is a quotient
    of two sums of weights.
    """
    dim, tokens = call.q.shape[-1], call.q.shape[1]
    largest = call.scale * float(call.q.norm(dim=-1).max() * call.k.norm(dim=-1).max())
    return 2 * (2 * (dim + 1) * largest + 2 * tokens + 8) * ROUNDING


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("wan", "window", {"density": 0.3}),
        ("wan", "adaspa", {"density": 0.3, "warmup": 0.34, "token_order": "tile"}),
        ("cogvideox", "adaspa", {"density": 0.4, "warmup": 0.0}),
        ("hunyuan_video", "blade-asa", {"density": 0.4}),
    ],
)
def test_recall_and_maps_equal_a_reference(name: str, method: str, options: Any) -> None:
    watch, _, report = run(FAMILIES[name], method=method, **options)
    assert report.sparse_calls > 0
    assert report.fallbacks == {}
    assert watch.probe.views.keys() == watch.seen.keys()
    assert len(watch.seen) == FAMILIES[name].layers * STEPS
    least = 1.0
    for place, (call, mask) in watch.seen.items():
        view = watch.probe.views[place]
        dense, heads = weights(call), call.q.shape[2]
        blocks = -(-call.q.shape[1] // BLOCK)
        assert view.blocks == (blocks, blocks)
        assert view.is_dense == (mask is None)
        if mask is None:
            assert set(view.recall) == {1.0}
            assert (view.kept == 255).all()
            continue
        held = (dense * by_token(mask, heads)).sum(dim=(-2, -1)) / dense.sum(dim=(-2, -1))
        assert torch.tensor(view.recall).sub(held).abs().max() <= bound(call)
        assert torch.equal(view.kept == 255, mask.to_dense()[-1].expand(heads, -1, -1))
        assert ((view.kept == 0) | (view.kept == 255)).all()  # nothing is pooled at this size
        assert view.density == tuple(mask.head_density[-1].expand(heads).tolist())
        check_map(view.attention, dense, blocks, bound(call))
        least = min(least, *view.recall)
    assert least < 0.99  # else leaving nothing out would have passed


def check_map(found: torch.Tensor, dense: torch.Tensor, blocks: int, error: float) -> None:
    rest = blocks * BLOCK - dense.shape[-1]
    padded = torch.nn.functional.pad(dense, (0, rest, 0, rest))
    mass = padded.unflatten(1, (blocks, BLOCK)).unflatten(3, (blocks, BLOCK)).sum(dim=(2, 4))
    wanted = mass / mass.mean(dim=(-2, -1), keepdim=True)
    half = 2.0**-11  # of a float16, which below 2**-14 has a smallest step instead
    torch.testing.assert_close(found.double(), wanted, rtol=half + error, atol=2.0**-25)


def test_a_full_density_holds_everything() -> None:
    watch, _, report = run(FAMILIES["wan"], method="window", density=1.0)
    assert report.sparse_calls == FAMILIES["wan"].calls(STEPS)
    for view in watch.probe.views.values():
        assert view.recall == (1.0, 1.0)  # a sum over itself
        assert not view.is_dense


def test_looking_changes_nothing() -> None:
    family = FAMILIES["wan"]
    watch, seen, _ = run(family, method="adaspa", density=0.3, warmup=0.34)
    pipe = family.build()
    pipe.enable_sparse_attention(block_size=BLOCK, gate=False, density=0.3, warmup=0.34)
    assert torch.equal(seen, family.run(pipe, steps=STEPS))
    assert watch.probe.views


def test_recall_of_masks_that_heads_share() -> None:
    mass = torch.tensor([[[[3.0, 1.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    kept = torch.tensor([[[[True, False], [True, True]]]])
    mask = BlockMask.from_dense(kept, block_size=4, q_len=8, kv_len=8)
    assert recall(mass, mask).tolist() == [[7 / 8, 0.0]]


@pytest.mark.parametrize("total", [1, 2, 12, 13, 50, 1000, None])
def test_looks_at_few_steps_spread_over_the_run(total: int | None) -> None:
    looked = [n for n in range(total or 100) if is_looked_at(Step(index=n, total=total))]
    assert len(looked) == min(total or 12, 12)
    assert looked[0] == 0
    if total is not None:
        assert looked[-1] == total - 1
        apart = [b - a for a, b in pairwise(looked)]
        assert not apart or max(apart) - min(apart) <= 1


@pytest.mark.parametrize("heads", [1, 100, 60 * 24, 10_000])
def test_maps_of_any_model_stay_small(heads: int) -> None:
    assert 8 <= map_side(heads) <= 64
    assert 12 * heads * 3 * map_side(heads) ** 2 <= 64 * 2**20
