"""A plan on a real pipeline: it runs what it says, or nothing is attached."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from plan_files import BLOCK, GRID, change, plan_of, with_heads
from tiny_pipelines import FAMILIES, flux, wan, wan22, wan_transformer
from untouched import states

import sparsediff
from sparsediff.kernels.errors import PlanError, PlanMismatchError
from sparsediff.plans import Fingerprint, PatternPlan
from sparsediff.search import PlannedHead
from sparsediff.search.patterns.pattern import Diagonal, Full, Stripe
from sparsediff.search.patterns.pattern_mask import pattern_mask

WAN = FAMILIES["wan"]
STEPS, PER_STEP = 4, 6  # three layers, two guidance branches


def uniform(plan: PatternPlan, pattern: Any) -> PatternPlan:
    return dataclasses.replace(
        plan, table=with_heads(plan.table, lambda _: PlannedHead(pattern=pattern, error=0.01))
    )


@pytest.mark.parametrize("form", ["object", "path", "text"])
def test_it_runs_the_patterns_it_says(form: str, plan: PatternPlan, tmp_path: Path) -> None:
    pipe = wan()
    pattern = Diagonal(half_width=0.25)
    plan = uniform(plan, pattern)
    plan.save_pretrained(tmp_path)
    choice = {"object": plan, "path": tmp_path, "text": str(tmp_path)}[form]
    dense = WAN.run(pipe, steps=STEPS)
    before = states(pipe)
    session = pipe.enable_sparse_attention(choice)
    sparse = WAN.run(pipe, steps=STEPS)
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (PER_STEP * 3, PER_STEP)  # start 0.25
    assert report.fallbacks == {}
    assert report.method["name"] == "sparse-vdit"
    expected = pattern_mask([pattern] * 2, GRID, BLOCK)
    for mask in session.masks().values():
        assert torch.equal(mask.to_dense(), expected.to_dense())
    assert 0 < expected.density < 1
    assert not torch.equal(sparse, dense)
    pipe.disable_sparse_attention()
    assert states(pipe) == before
    assert torch.equal(WAN.run(pipe, steps=STEPS), dense)


def test_full_patterns_equal_dense(plan: PatternPlan) -> None:
    pipe = wan()
    dense = WAN.run(pipe, steps=STEPS)
    session = pipe.enable_sparse_attention(uniform(plan, Full()))
    sparse = WAN.run(pipe, steps=STEPS)
    assert session.report().sparse_calls == PER_STEP * 3
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-4)


def test_every_mode_in_one_plan(plan: PatternPlan) -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(plan)
    assert torch.isfinite(WAN.run(pipe, steps=STEPS)).all()
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (PER_STEP * 3, {})


def test_another_number_of_steps(plan: PatternPlan) -> None:
    """Parts are shares of the run: 0.25 and 0.6 of ten steps are steps 3 and 6."""
    pipe = wan()
    narrow, wide = Diagonal(half_width=0.1), Full()
    heads = [
        tuple(tuple(PlannedHead(pattern=p) for _ in heads) for heads in plan.table.buckets[0])
        for p in (wide, narrow)
    ]
    table = dataclasses.replace(plan.table, buckets=tuple(heads))
    session = pipe.enable_sparse_attention(dataclasses.replace(plan, table=table))
    WAN.run(pipe, steps=10)
    densities = [row["density"] for row in session.report().steps]
    assert densities[:6] == [1.0] * 6
    assert max(densities[6:]) < 0.6  # type: ignore[type-var]
    assert session.report().dense_calls == 3 * PER_STEP


def test_bare_models_and_pipelines_share_plans(tmp_path: Path) -> None:
    plan_of(wan()).save_pretrained(tmp_path)
    model = wan_transformer()
    assert model.enable_sparse_attention(tmp_path).layers[0] == "blocks.0.attn1"
    plan_of(wan_transformer()).save_pretrained(tmp_path)
    assert wan().enable_sparse_attention(tmp_path).layers[0] == "transformer.blocks.0.attn1"


def test_both_experts_of_wan22(tmp_path: Path) -> None:
    pipe = wan22()
    plan = plan_of(pipe)
    assert plan.fingerprint.layers[3] == "transformer_2.blocks.0.attn1"
    session = pipe.enable_sparse_attention(plan)
    WAN.run(pipe, steps=STEPS)
    assert session.report().sparse_calls == PER_STEP * 3
    for target in (wan(), pipe.transformer_2, wan_transformer()):
        with pytest.raises(PlanMismatchError, match=r"components: the plan has transformer \("):
            plan.check(target)


def test_options_reach_the_method(plan: PatternPlan) -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(
        plan, strict=False, online_above=0.06, compensate=True, refresh=(0.7,)
    )
    method: Any = session.method
    assert (method.strict, method.online_above) == (False, 0.06)
    assert (method.compensate, method.refresh) == (True, (0.7,))
    assert method.density == plan.table.density
    WAN.run(pipe, steps=STEPS)
    assert session.report().sparse_calls == PER_STEP * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.5}, r"density=0\.5: .*searched for density=0\.3.*search a plan"),
        ({"block_size": 16}, r"block_size=16: .*searched for block_size=8"),
        ({"warmup": 0.5}, r"warmup=0\.5: .*searched for warmup=0\.25"),
        ({"strikt": False}, r"no option 'strikt'.*Did you mean 'strict'"),
        ({"strict": "no"}, r"strict='no'"),
        ({"gate": 3}, "gate=3"),
    ],
)
def test_options_that_contradict(
    pipe: Any, plan: PatternPlan, options: dict[str, Any], message: str
) -> None:
    before = states(pipe)
    with pytest.raises(sparsediff.SparseError, match=message):
        pipe.enable_sparse_attention(plan, **options)
    assert states(pipe) == before


def test_the_name_alone_needs_a_plan(pipe: Any) -> None:
    before = states(pipe)
    with pytest.raises(sparsediff.SparseError, match=r"'sparse-vdit' runs .* pass the plan itself"):
        pipe.enable_sparse_attention("sparse-vdit")
    assert states(pipe) == before


def edits() -> dict[str, tuple[Any, str]]:
    """Row 1: what may differ, and what the error has to name."""

    def part(values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = values["fingerprint"]["components"][0]
        return found

    def more_layers(values: dict[str, Any]) -> None:
        for name, extra in (("layers", "blocks.3.attn1"), ("heads", 2), ("head_dims", 12)):
            part(values)[name].append(extra)
        for bucket in values["buckets"]:
            bucket.append(bucket[0])

    def more_heads(values: dict[str, Any]) -> None:
        part(values)["heads"] = [3, 3, 3]
        for bucket in values["buckets"]:
            for heads in bucket:
                heads.append(heads[0])

    return {
        "class": (
            lambda v: part(v).update(model="FluxTransformer2DModel"),
            r"class of transformer: the plan has FluxTransformer2DModel, this model Wan",
        ),
        "component": (
            lambda v: part(v).update(name="unet"),
            r"components: the plan has unet \(Wan\w+\), this model transformer \(Wan\w+\)",
        ),
        "layers": (more_layers, r"layers of transformer: the plan has 4, this model 3"),
        "names": (
            lambda v: part(v)["layers"].__setitem__(1, "blocks.9.attn1"),
            r"names of transformer: the plan has blocks.9.attn1 in layer 1, this model blocks.1",
        ),
        "heads": (more_heads, r"heads of transformer: .* 3 in layer 0, this model 2, and 2 layers"),
        "head dim": (
            lambda v: part(v).update(head_dims=[12, 64, 12]),
            r"head dim of transformer: the plan has 64 in layer 1, this model 12\.",
        ),
        "grid rule": (
            lambda v: part(v).update(grid_rule="flux"),
            r"grid rule of transformer: the plan has flux, this model wan",
        ),
    }


@pytest.mark.parametrize("what", edits())
def test_row_1_another_architecture(what: str, pipe: Any, folder: Path) -> None:
    edit, message = edits()[what]
    change(folder, edit)
    before = states(pipe)
    with pytest.raises(PlanMismatchError, match=message):
        pipe.enable_sparse_attention(folder)
    assert states(pipe) == before


def test_row_1_names_every_difference(pipe: Any, folder: Path) -> None:
    for what in ("class", "head dim", "grid rule"):
        change(folder, edits()[what][0])
    with pytest.raises(PlanMismatchError, match=r"class of .*; grid rule of .*; head dim of "):
        pipe.enable_sparse_attention(folder)
    with pytest.raises(PlanMismatchError):
        plan_of(flux()).check(pipe)


def test_row_2_another_size(plan: PatternPlan) -> None:
    pipe = wan()
    steps: list[int] = []
    pipe.enable_sparse_attention(uniform(plan, Stripe(columns=(0, 2))))

    def count(*_: Any) -> dict[str, Any]:
        steps.append(1)
        return {}

    with pytest.raises(PlanMismatchError, match=r"TokenGrid\(3x4x4\); this run has TokenGrid\(2x"):
        WAN.run(pipe, steps=STEPS, num_frames=5, callback_on_step_end=count)
    assert steps == []
    with pytest.raises(PlanMismatchError, match=r"Sparse attention is disabled again\.$"):
        pipe.enable_sparse_attention(plan)
        WAN.run(pipe, steps=STEPS, num_frames=5)
    session = pipe.enable_sparse_attention(uniform(plan, Stripe(columns=(0, 2))), strict=False)
    WAN.run(pipe, steps=STEPS, num_frames=5)
    report = session.report()
    assert report.sparse_calls == PER_STEP * 3
    assert report.sparse_density == 1.0  # stripes run full
    assert len(report.notes) == 1
    assert "12 of 12 patterns are stripes" in report.notes[0]
    assert report.notes[0] in str(report)
    assert report.to_dict()["notes"] == report.notes
    WAN.run(pipe, steps=STEPS)
    assert session.report().notes == []  # the plan's own size again


def test_row_3_other_weights(plan: PatternPlan, caplog: pytest.LogCaptureFixture) -> None:
    pipe = wan()
    with torch.no_grad():
        pipe.transformer.blocks[1].attn1.to_q.weight.mul_(1.01)
    theirs = Fingerprint.of(pipe).weights
    with caplog.at_level(logging.WARNING, logger="sparsediff"):
        session = pipe.enable_sparse_attention(plan)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert str(plan.fingerprint.weights)[:12] in message
    assert str(theirs)[:12] in message
    WAN.run(pipe, steps=STEPS)
    assert session.report().sparse_calls == PER_STEP * 3


def test_the_same_weights_are_silent(plan: PatternPlan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sparsediff"):
        for pipe in (wan(), wan().to(torch.bfloat16), wan().to(torch.float16)):
            pipe.enable_sparse_attention(plan)
    assert [record for record in caplog.records if record.name == "sparsediff"] == []


def test_with_block(plan: PatternPlan) -> None:
    pipe = wan()
    WAN.run(pipe, steps=STEPS)  # a run leaves attributes of its own on the pipeline
    before = states(pipe)
    with sparsediff.sparse_attention(pipe, plan) as session:
        WAN.run(pipe, steps=STEPS)
    assert session.report().sparse_calls == PER_STEP * 3
    assert states(pipe) == before


def test_a_table_alone_is_refused_in_a_few_words(plan: PatternPlan) -> None:
    with pytest.raises(sparsediff.SparseError, match=r"Unknown method PatternTable\(") as error:
        wan().enable_sparse_attention(plan.table)  # type: ignore[arg-type]
    assert len(str(error.value)) < 500


def test_public_names() -> None:
    assert sparsediff.PatternPlan is PatternPlan
    assert sparsediff.SparseVDiT.name == "sparse-vdit"
    assert issubclass(PlanError, sparsediff.SparseError)
