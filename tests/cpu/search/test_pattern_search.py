"""The offline search on heads that were built to have a mode, from profile to plan."""

from __future__ import annotations

import pytest
import torch
from attention_calls import Recorder, call

from sparsediff.kernels import SparseError
from sparsediff.search import Memory, PatternTable, PlannedHead, SparseVDiT, Step, TokenGrid
from sparsediff.search.offline.candidates import CandidateSettings, candidates, densities
from sparsediff.search.offline.choice import MOST_SKIPPED, Chooser, LayerChoices
from sparsediff.search.offline.profile import AttentionProfile, Profiling
from sparsediff.search.offline.sampled_steps import SampledSteps
from sparsediff.search.offline.trial import LayerTrials, PatternTrial
from sparsediff.search.patterns.pattern import MODES, Full, Online, Skip
from sparsediff.search.patterns.pattern_mask import pattern_mask

GRID = TokenGrid(frames=8, height=8, width=8)  # a frame is 4 blocks of 16
BLOCK, DIM = 16, 64
PERIOD = GRID.height * GRID.width
STEPS = SampledSteps(starts=(0.2, 0.6), per_bucket=1)
KINDS = ("diagonal", "multi-diagonal", "stripe", "full")


def near(position: torch.Tensor, width: float, seed: int) -> torch.Tensor:
    """Features whose inner product falls with the distance of two positions: ``[s, DIM]``."""
    noise = torch.Generator().manual_seed(seed)
    waves = torch.randn(DIM // 2, generator=noise) / width
    phase = position[:, None] * waves
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def head(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value ``[s, DIM]`` of a head that attends in one way."""
    noise = torch.Generator().manual_seed(seed)
    token = torch.arange(GRID.tokens, dtype=torch.float32)
    v = torch.randn(GRID.tokens, DIM, generator=noise)
    q = k = torch.zeros(GRID.tokens, DIM)
    if kind == "diagonal":
        q = k = 2.5 * near(token, 8.0, seed)
    elif kind == "multi-diagonal":
        q = k = 2.5 * near(token % PERIOD, 4.0, seed)
    elif kind == "stripe":
        k = torch.zeros(GRID.tokens, DIM)
        for column in (3, 11, 20, 27):
            k[column * BLOCK : (column + 1) * BLOCK, 0] = 10.0
        q = torch.zeros(GRID.tokens, DIM)
        q[:, 0] = 8.0
    elif kind == "nothing":
        v = 1e-4 * v
    return q, k, v


def layer(kinds: list[str]) -> list[torch.Tensor]:
    """q, k, v ``[1, s, h, DIM]``."""
    heads = [head(kind, seed) for seed, kind in enumerate(kinds)]
    return [torch.stack(part, dim=1)[None] for part in zip(*heads, strict=True)]


def walk(method, qkv: list[torch.Tensor]) -> list[torch.Tensor]:
    """A run of five steps; the output of every step."""
    memory = Memory()
    return [
        method.attend(call(GRID, Step(index=index, total=5), Recorder(), qkv), memory)
        for index in range(5)
    ]


def search(kinds: list[str], *, online: bool = False, price: float = 0.02):
    """Profile, candidates, trial: what is known of the layer, and the trial's outputs."""
    qkv = layer(kinds)
    profiling = Profiling(steps=STEPS, block_size=BLOCK)
    walk(profiling, qkv)
    profile = profiling.record.layers[0]
    settings = CandidateSettings(densities=(0.1, 0.2, 0.4), allow_skip=True, online=online)
    rows = tuple(tuple(candidates(profile, b, GRID, BLOCK, settings)) for b in range(2))
    shares = torch.stack([densities(bucket, GRID, BLOCK) for bucket in rows])
    trial = PatternTrial(
        trials={0: LayerTrials(rows=rows, costs=shares)}, price=price, steps=STEPS, block_size=BLOCK
    )
    outputs = walk(trial, qkv)
    errors = torch.stack([trial.record.mean(0, bucket) for bucket in range(2)])
    return LayerChoices(rows=rows, errors=errors, costs=shares, densities=shares), outputs, qkv


def test_every_head_gets_the_mode_it_was_built_with() -> None:
    kinds = [*KINDS * 9, "nothing"]  # one in 37: less than may be skipped
    assert 1 / len(kinds) < MOST_SKIPPED
    known, _, _ = search(kinds)
    chooser = Chooser([known], STEPS.steps(5))
    table = chooser.table(chooser.at_price(0.02), GRID, BLOCK, STEPS.starts)
    for bucket in table.buckets:
        found = [MODES[type(planned.pattern)] for planned in bucket[0]]
        assert found == [*KINDS * 9, "skip"]


def test_skips_are_capped() -> None:
    kinds = ["nothing"] * 3 + ["diagonal"] * 37
    known, _, _ = search(kinds)
    chooser = Chooser([known], STEPS.steps(5))
    table = chooser.table(chooser.at_price(0.02), GRID, BLOCK, STEPS.starts)
    skipped = sum(isinstance(p.pattern, Skip) for b in table.buckets for p in b[0])
    assert skipped == int(MOST_SKIPPED * 2 * len(kinds)) == 2


def test_the_trial_goes_on_with_what_it_chose() -> None:
    """Its outputs are those of the plan of the same price, executed."""
    known, outputs, qkv = search(list(KINDS))
    chooser = Chooser([known], STEPS.steps(5))
    table = chooser.table(chooser.at_price(0.02), GRID, BLOCK, STEPS.starts)
    assert len(table.modes) == len(KINDS)
    planned = walk(SparseVDiT(table=table), qkv)
    for tried, executed in zip(outputs, planned, strict=True):
        torch.testing.assert_close(tried, executed, atol=1e-5, rtol=1e-4)


def test_errors_are_relative_to_the_variance_of_the_output() -> None:
    known, _, qkv = search(["stripe"])
    window = next(i for i, row in enumerate(known.rows[0]) if MODES[type(row[0])] == "diagonal")
    q, k, v = (x[0, :, 0].double() for x in qkv)
    scores = q @ k.T * DIM**-0.5
    full = scores.softmax(-1) @ v
    pattern = known.rows[0][window][0]
    kept = pattern_mask([pattern], GRID, BLOCK).to_dense()[0, 0]
    kept = kept.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    sparse = scores.masked_fill(~kept, -torch.inf).softmax(-1) @ v
    expected = (sparse - full).square().mean() / full.var(unbiased=False)
    assert float(known.errors[0, window, 0]) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("density", [0.15, 0.3, 0.5])
def test_a_density_budget_is_met_from_below(density: float) -> None:
    known, _, _ = search(list(KINDS) * 3)
    choice = Chooser([known], STEPS.steps(5)).at_density(density)
    assert choice.density <= density
    assert choice.density == round(choice.density, 6)  # people read it, and give it again
    dearer = Chooser([known], STEPS.steps(5)).at_price(choice.price * 0.98)
    assert dearer.density >= choice.density


def test_the_least_loss_wins_and_full_stays_above_epsilon() -> None:
    """The paper's rule: full attention where every other candidate's loss is above the bound."""
    known, _, _ = search(list(KINDS))
    chooser = Chooser([known], STEPS.steps(5))
    choice = chooser.at_price(0.02)
    assert choice.epsilon == 0.02  # full attention costs 1 here
    loss = known.errors + 0.02 * known.costs
    for bucket in range(2):
        for number, pick in enumerate(choice.picks[0][bucket].tolist()):
            others = loss[bucket, 1:, number]
            assert (pick == 0) == bool((others >= choice.epsilon).all())


def test_online_heads_compete() -> None:
    known, _, _ = search(list(KINDS), online=True)
    names = [MODES[type(row[0])] for row in known.rows[0]]
    assert names.count("online") == 3
    online = torch.tensor([name == "online" for name in names])
    assert bool((known.errors[:, online, 0] < 0.05).any())


def test_a_layer_that_begins_between_the_sampled_steps_is_looked_at() -> None:
    """As the second model of Wan 2.2 does: its first call in a bucket counts, whenever it comes."""
    qkv = layer(["diagonal", "stripe"])
    late = Step(index=2, total=5)  # the first bucket's sampled step is 1
    assert not STEPS.is_sampled(late)
    profiling = Profiling(steps=STEPS, block_size=BLOCK)
    profiling.attend(call(GRID, late, Recorder(), qkv), Memory())
    profile = profiling.record.layers[0]
    assert profile.calls.tolist() == [1, 0]
    settings = CandidateSettings(densities=(0.2,))
    rows = (tuple(candidates(profile, 0, GRID, BLOCK, settings)),) * 2
    shares = torch.stack([densities(bucket, GRID, BLOCK) for bucket in rows])
    trial = PatternTrial(
        trials={0: LayerTrials(rows=rows, costs=shares)}, price=0.02, steps=STEPS, block_size=BLOCK
    )
    trial.attend(call(GRID, late, Recorder(), qkv), Memory())
    assert trial.record.calls[0].tolist() == [1, 0]


def test_online_candidates_are_as_stale_as_those_of_a_plan() -> None:
    """Searched in the last dense step: with other attention in the next one they miss its blocks."""
    first, after = layer(["stripe"]), layer(["multi-diagonal"])
    rows = (((Full(),), (Online(density=0.2),)),) * 2
    costs = torch.ones(2, 2, 1, dtype=torch.float64)
    trial = PatternTrial(
        trials={0: LayerTrials(rows=rows, costs=costs)}, price=0.0, steps=STEPS, block_size=BLOCK
    )
    planned = SparseVDiT(
        table=PatternTable(
            grid=GRID,
            block_size=BLOCK,
            starts=STEPS.starts,
            buckets=(((PlannedHead(pattern=Online(density=0.2)),),),) * 2,
            density=0.2,
        )
    )
    outputs = []
    for method in (trial, planned):
        memory = Memory()
        for index, qkv in ((0, first), (1, after)):
            out = method.attend(call(GRID, Step(index=index, total=5), Recorder(), qkv), memory)
        outputs.append(out)
    full, stale = outputs
    expected = (stale - full).square().mean() / full.var(unbiased=False)
    assert float(trial.record.errors[0][0, 1, 0]) == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 0.3


def test_a_choice_that_stays_full_has_density_1() -> None:
    """The shares of the buckets may sum to a little more than 1; a density may not."""
    full = LayerChoices(
        rows=(((Full(),),),) * 5,
        errors=torch.zeros(5, 1, 1, dtype=torch.float64),
        costs=torch.ones(5, 1, 1, dtype=torch.float64),
        densities=torch.ones(5, 1, 1, dtype=torch.float64),
    )
    chooser = Chooser([full], (6, 6, 6, 6, 2))
    assert float(chooser.weights.sum()) > 1
    assert chooser.at_price(0.1).density == 1


def test_a_run_without_sparse_steps_has_no_plan() -> None:
    known, _, _ = search(["full"])
    with pytest.raises(SparseError, match="warmup"):
        Chooser([known], [0, 0])


def test_a_bare_model_cannot_be_searched() -> None:
    with pytest.raises(SparseError, match="pipeline"):
        Profiling(steps=STEPS, block_size=BLOCK).attend(
            call(GRID, Step(index=3, progress=0.5), Recorder(), layer(["full"])), Memory()
        )


def test_a_density_next_to_nothing_has_candidates() -> None:
    assert CandidateSettings.around(0.0001).densities == (0.0001, 0.0002)


def test_text_in_every_block_leaves_nothing_to_search() -> None:
    grid = TokenGrid(frames=3, height=8, width=8, text_after=16)
    profile = AttentionProfile.empty(1, 2, 2)
    with pytest.raises(SparseError, match="text touches every block"):
        candidates(profile, 0, grid, 200, CandidateSettings.around(0.3))
