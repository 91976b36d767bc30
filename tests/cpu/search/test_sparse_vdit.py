"""SparseVDiT: every mode against attention over the same token pairs, and the way through a run."""

from __future__ import annotations

import pytest
import torch
from attention_calls import Recorder, call, tensors

from sparsediff.kernels import SparseError
from sparsediff.kernels.errors import PlanMismatchError
from sparsediff.search import (
    AdaSpa,
    Memory,
    PatternTable,
    PlannedHead,
    SparseVDiT,
    Step,
    TokenGrid,
)
from sparsediff.search.patterns import token_reorder
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_mask import pattern_density, pattern_mask
from sparsediff.search.patterns.token_reorder import by_place

BLOCK = 16
GRID = TokenGrid(frames=4, height=6, width=8, text_after=20)
MIXED: list[Pattern] = [
    Full(),
    Skip(),
    Diagonal(half_width=0.3),
    MultiDiagonal(half_widths=(0.2, 0.0)),
    MultiDiagonal(half_widths=(0.1,), everywhere=True),
    MultiDiagonal(half_widths=(0.1,), everywhere=True, by_place=True),
    Stripe(columns=(1, 4)),
]


def table(
    *buckets: list[Pattern],
    starts: tuple[float, ...] = (0.2, 0.5),
    grid: TokenGrid = GRID,
    error: float | None = None,
) -> PatternTable:
    """One layer."""
    return PatternTable(
        grid=grid,
        block_size=BLOCK,
        starts=starts[: len(buckets)],
        buckets=tuple(((tuple(PlannedHead(pattern=p, error=error) for p in b)),) for b in buckets),
        density=0.4,
    )


def oracle(qkv: list[torch.Tensor], patterns: list[Pattern], grid: TokenGrid) -> torch.Tensor:
    """Attention in float64 over the token pairs of the patterns' blocks, head by head."""
    q, k, v = (x.double() for x in qkv)
    out = torch.zeros_like(q)
    mask = pattern_mask(patterns, grid, BLOCK).to_dense()[0]
    order = by_place(grid)
    for head, pattern in enumerate(patterns):
        if isinstance(pattern, Skip):
            continue
        tokens = mask[head].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        tokens = tokens[: grid.tokens, : grid.tokens]
        if isinstance(pattern, MultiDiagonal) and pattern.by_place:
            back = order.argsort()
            tokens = tokens[back][:, back]
        scores = torch.einsum("bsd,btd->bst", q[:, :, head], k[:, :, head]) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~tokens, -torch.inf).softmax(-1)
        out[:, :, head] = torch.einsum("bst,btd->bsd", weights, v[:, :, head])
    return out


def run(
    method: SparseVDiT, step: Step, qkv: list[torch.Tensor], memory: Memory | None = None,
    grid: TokenGrid = GRID,
) -> tuple[torch.Tensor, Recorder]:  # fmt: skip
    recorder = Recorder()
    out = method.attend(call(grid, step, recorder, qkv), memory or Memory())
    return out, recorder


def test_all_modes_in_one_launch() -> None:
    qkv = tensors(GRID, heads=len(MIXED))
    out, recorder = run(SparseVDiT(table=table(MIXED)), Step(index=5, total=10), qkv)
    assert recorder.ran == ["sparse"]
    torch.testing.assert_close(out.double(), oracle(qkv, MIXED, GRID), atol=2e-5, rtol=1e-4)
    assert bool((out[:, :, 1] == 0).all())


def test_a_skipped_head_gives_zero_with_mean_keys_too() -> None:
    """The search tries it as 0, at the cost of nothing."""
    qkv = tensors(GRID, heads=len(MIXED))
    step = Step(index=5, total=10)
    plain, _ = run(SparseVDiT(table=table(MIXED)), step, qkv)
    out, recorder = run(SparseVDiT(table=table(MIXED), compensate=True), step, qkv)
    assert recorder.ran == ["sparse"]
    assert bool((out[:, :, 1] == 0).all())
    assert not torch.allclose(out[:, :, 2], plain[:, :, 2], atol=1e-3)  # the others have them


def test_a_layer_of_reordered_heads_only() -> None:
    patterns: list[Pattern] = [MIXED[5]] * 3
    qkv = tensors(GRID, heads=3)
    out, _ = run(SparseVDiT(table=table(patterns)), Step(index=5, total=10), qkv)
    torch.testing.assert_close(out.double(), oracle(qkv, patterns, GRID), atol=2e-5, rtol=1e-4)


def test_the_order_of_tokens_is_made_once_for_a_bucket(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(
        token_reorder, "by_place", lambda *given: made.append(given) or by_place(*given)
    )
    qkv, memory = tensors(GRID, heads=len(MIXED)), Memory()
    for index in (3, 4):
        _, recorder = run(SparseVDiT(table=table(MIXED)), Step(index=index, total=10), qkv, memory)
        assert recorder.ran == ["sparse"]
    assert len(made) == 1


def test_steps_choose_the_bucket() -> None:
    wide: list[Pattern] = [Diagonal(half_width=2.0)] * 2
    narrow: list[Pattern] = [Diagonal(half_width=0.0)] * 2
    method = SparseVDiT(table=table(wide, narrow))
    qkv, memory = tensors(GRID, heads=2), Memory()
    seen = []
    for index in range(10):
        out, recorder = run(method, Step(index=index, total=10), qkv, memory)
        if recorder.ran == ["dense"]:
            seen.append("dense")
            continue
        for name, patterns in (("wide", wide), ("narrow", narrow)):
            if torch.allclose(out.double(), oracle(qkv, patterns, GRID), atol=2e-5):
                seen.append(name)
    assert seen == ["dense"] * 2 + ["wide"] * 3 + ["narrow"] * 5


def test_branches_share_the_fixed_blocks() -> None:
    method, shared = SparseVDiT(table=table(MIXED)), {}
    qkv = tensors(GRID, heads=len(MIXED))
    masks = []
    for _ in range(2):
        _, recorder = run(method, Step(index=5, total=10), qkv, Memory(layer=shared))
        masks += recorder.masks
    assert masks[0] is masks[1]


def test_online_heads_do_what_adaspa_does() -> None:
    """From the last dense step on, at the density that they are given, other heads untouched."""
    density = 0.3
    patterns: list[Pattern] = [
        Online(density=density),
        Diagonal(half_width=0.3),
        Online(density=density),
    ]
    qkv = tensors(GRID, heads=3)
    method = SparseVDiT(table=table(patterns), refresh=())
    adaspa = AdaSpa(density=density, block_size=BLOCK, head_budgets=False, refresh=())
    ours, theirs = Memory(), Memory()
    for index in (1, 2):
        recorder = Recorder()
        out, ran = run(method, Step(index=index, total=10), qkv, ours)
        other = adaspa.attend(call(GRID, Step(index=index, total=10), recorder, qkv), theirs)
        assert recorder.ran == ran.ran
    assert ran.ran == ["sparse"]
    online = [0, 2]
    torch.testing.assert_close(out[:, :, online], other[:, :, online])
    fixed = oracle(qkv, [Full(), patterns[1], Full()], GRID)
    torch.testing.assert_close(out[:, :, 1].double(), fixed[:, :, 1], atol=2e-5, rtol=1e-4)
    kept, expected = ran.masks[0].to_dense()[:, online], recorder.masks[0].to_dense()[:, online]
    assert torch.equal(kept, expected)


def test_online_heads_are_searched_again_in_a_new_bucket() -> None:
    patterns: list[Pattern] = [Online(density=0.3)] * 2
    method, memory = SparseVDiT(table=table(patterns, patterns), refresh=()), Memory()
    masks = []
    for index, seed in ((1, 0), (2, 1), (3, 1), (5, 1)):
        _, recorder = run(
            method, Step(index=index, total=10), tensors(GRID, heads=2, seed=seed), memory
        )
        masks += recorder.masks
    assert masks[0] is masks[1]
    assert masks[2] is not masks[1]


def test_heads_above_the_bound_go_online() -> None:
    planned = table([Diagonal(half_width=0.3), Full()], error=0.2)
    qkv = tensors(GRID, heads=2)
    memory = Memory()
    for index in (1, 2):
        _, recorder = run(
            SparseVDiT(table=planned, online_above=0.1), Step(index=index, total=10), qkv, memory
        )
    assert memory.lse is not None
    assert recorder.masks[0].counts.shape[0] == 2  # a pattern per batch item: it was searched
    share = pattern_density(Diagonal(half_width=0.3), GRID, BLOCK)
    assert recorder.masks[0].head_density[0, 0] == pytest.approx(share, abs=0.05)
    assert bool((recorder.masks[0].head_density[:, 1] == 1).all())
    _, recorder = run(SparseVDiT(table=planned, online_above=0.3), Step(index=5, total=10), qkv)
    assert recorder.masks[0].counts.shape[0] == 1


def test_another_grid_is_an_error_or_carried_over() -> None:
    other = TokenGrid(frames=3, height=4, width=8, text_after=20)
    qkv = tensors(other, heads=len(MIXED))
    for index in (0, 5):  # refused in the first dense step already
        with pytest.raises(PlanMismatchError, match=r"4x6x8.*3x4x8"):
            run(SparseVDiT(table=table(MIXED)), Step(index=index, total=10), qkv, grid=other)
    method = SparseVDiT(table=table(MIXED), strict=False)
    out, recorder = run(method, Step(index=5, total=10), qkv, grid=other)
    carried = [Full() if isinstance(p, Stripe) else p for p in MIXED]
    torch.testing.assert_close(out.double(), oracle(qkv, carried, other), atol=2e-5, rtol=1e-4)
    assert "1 of 7 patterns are stripes" in recorder.notes[0]


def test_the_grid_is_looked_at_again_when_it_changes() -> None:
    """A bare model may be called with as many tokens in another shape."""
    method, memory = SparseVDiT(table=table(MIXED)), Memory()
    qkv = tensors(GRID, heads=len(MIXED))
    run(method, Step(index=5, total=10), qkv, memory)
    turned = TokenGrid(frames=4, height=8, width=6, text_after=20)
    with pytest.raises(PlanMismatchError, match="4x8x6"):
        run(method, Step(index=5, total=10), qkv, memory, grid=turned)


def test_widths_in_frames_mean_nothing_in_an_image() -> None:
    image = TokenGrid(frames=1, height=12, width=16, text_after=20)
    qkv = tensors(image, heads=len(MIXED))
    method = SparseVDiT(table=table(MIXED), strict=False)
    out, recorder = run(method, Step(index=5, total=10), qkv, grid=image)
    carried: list[Pattern] = [p if isinstance(p, Skip) else Full() for p in MIXED]
    torch.testing.assert_close(out.double(), oracle(qkv, carried, image), atol=2e-5, rtol=1e-4)
    assert "widths, which count frames and not rows" in recorder.notes[0]


def test_other_layers_or_heads_are_refused() -> None:
    recorder = Recorder()
    with pytest.raises(PlanMismatchError, match="7 heads"):
        run(SparseVDiT(table=table(MIXED)), Step(index=5, total=10), tensors(GRID, heads=2))
    with pytest.raises(PlanMismatchError, match="1 layers"):
        SparseVDiT(table=table(MIXED)).attend(
            call(GRID, Step(index=5, total=10), recorder, tensors(GRID, heads=7), layer=1), Memory()
        )


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0.5},
        {"block_size": 64},
        {"online_above": -1.0},
        {"online_above": "0.1"},
        {"strict": 1},
    ],
)
def test_options_cannot_contradict_the_plan(options) -> None:
    with pytest.raises(SparseError, match=next(iter(options))):
        SparseVDiT(table=table(MIXED), **options)


def test_only_a_table_is_a_table() -> None:
    with pytest.raises(SparseError, match="str: needs a PatternTable"):
        SparseVDiT(table="samples/plans")  # type: ignore[arg-type]


def test_options_that_may_change() -> None:
    method = SparseVDiT(table=table(MIXED)).with_options(compensate=True, density=0.4)
    assert (method.compensate, method.density, method.block_size) == (True, 0.4, BLOCK)
    assert method.to_dict()["modes"]["multi-diagonal"] == 3
