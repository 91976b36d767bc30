"""A plan that is saved and loaded is the same plan; the files are small, whole and readable."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from plan_files import BLOCK, EVIDENCE, GRID, PATTERNS, plan_of, with_heads
from tiny_pipelines import FAMILIES, wan

from sparsediff.kernels.errors import PlanError, SparseError
from sparsediff.plans import Evidence, Fingerprint, PatternPlan
from sparsediff.search import PatternTable, PlannedHead
from sparsediff.search.patterns.pattern import Diagonal, Full, Skip, Stripe


def test_every_field_comes_back(plan: PatternPlan, folder: Path) -> None:
    used = {type(h.pattern) for bucket in plan.table.buckets for heads in bucket for h in heads}
    assert used == {type(pattern) for pattern in PATTERNS}
    found = PatternPlan.from_pretrained(folder)
    assert found == plan
    assert found.evidence == EVIDENCE
    assert PatternPlan.from_pretrained(str(folder)) == plan
    assert {path.name for path in folder.iterdir()} == {
        "plan.json",
        "tables.safetensors",
        "README.md",
    }
    assert dataclasses.replace(plan, evidence=Evidence()) != plan


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_architecture(family: Any, tmp_path: Path) -> None:
    pipe = family.build()
    session = pipe.enable_sparse_attention()
    layers = session.layers
    session.disable()
    plan = plan_of(pipe)
    assert list(plan.fingerprint.layers) == layers
    plan.save_pretrained(tmp_path)
    found = PatternPlan.from_pretrained(tmp_path)
    assert found == plan
    assert found.fingerprint.differences(Fingerprint.of(family.build())) == []


def test_a_plan_without_stripes_has_no_tables(plan: PatternPlan, folder: Path) -> None:
    bare = dataclasses.replace(
        plan, table=with_heads(plan.table, lambda _: PlannedHead(pattern=Diagonal(half_width=0.1)))
    )
    assert (folder / "tables.safetensors").exists()
    bare.save_pretrained(folder)
    assert not (folder / "tables.safetensors").exists()
    assert PatternPlan.from_pretrained(folder) == bare


def test_numbers_are_exact(plan: PatternPlan, tmp_path: Path) -> None:
    odd = (0.1 + 0.2, 1e-17, 5e-324, 1 / 3)
    for value in odd:
        table = with_heads(
            plan.table,
            lambda _, value=value: PlannedHead(pattern=Diagonal(half_width=value), error=value),
        )
        dataclasses.replace(plan, table=table).save_pretrained(tmp_path)
        assert PatternPlan.from_pretrained(tmp_path).table == table


def test_a_large_model_stays_small(tmp_path: Path) -> None:
    """40 layers x 40 heads x 4 parts, a third of them stripes of hundreds of columns."""
    patterns = [
        Diagonal(half_width=0.123456789),
        Stripe(columns=tuple(range(0, 1182, 3))),
        Full(),
    ]
    heads = tuple(PlannedHead(pattern=patterns[i % 3], error=0.0123456789) for i in range(40))
    table = PatternTable(
        grid=dataclasses.replace(GRID, frames=21, height=60, width=60),
        block_size=64,
        starts=(0.2, 0.4, 0.6, 0.8),
        buckets=((heads,) * 40,) * 4,
        density=0.3,
    )
    part = dataclasses.replace(
        Fingerprint.of(wan()).components[0],
        layers=tuple(f"blocks.{i}.attn1" for i in range(40)),
        heads=(40,) * 40,
        head_dims=(128,) * 40,
    )
    plan = PatternPlan(table=table, fingerprint=Fingerprint(components=(part,)))
    plan.save_pretrained(tmp_path)
    assert (tmp_path / "plan.json").stat().st_size < 600_000
    assert (tmp_path / "tables.safetensors").stat().st_size < 3_000  # equal stripes share a row
    assert PatternPlan.from_pretrained(tmp_path) == plan


def test_others_may_read_what_is_saved(folder: Path) -> None:
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044


def test_a_crash_leaves_the_old_plan(
    plan: PatternPlan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(plan, evidence=Evidence())

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(PlanError, match=r"could not be saved.*No space left"):
            other.save_pretrained(folder)
    assert PatternPlan.from_pretrained(folder) == plan
    assert len(list(folder.iterdir())) == 3  # no scratch file is left
    other.save_pretrained(folder)
    assert PatternPlan.from_pretrained(folder) == other


def test_scratch_files_are_ignored(plan: PatternPlan, folder: Path) -> None:
    (folder / ".plan.json-1234abcd.tmp").write_text('{"schema"')
    assert PatternPlan.from_pretrained(folder) == plan


def test_what_it_says(plan: PatternPlan) -> None:
    text = str(plan)
    assert len(text.splitlines()) <= 8
    assert max(map(len, text.splitlines())) <= 110
    for part in (
        "WanTransformer3DModel",
        "TokenGrid(3x4x4)",
        "3 layers, 6 heads, 2 parts",
        "stripe 3",
        "0.300",
        "2 prompts",
        "4 steps",
        "density 0.3",
        "1.25x",
        "31.5 dB",
    ):
        assert part in text
    summary = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert sum(summary["modes"].values()) == 12
    assert summary["expected"]["psnr"] == 31.5
    assert summary["budget"] == {"density": 0.3}
    assert "buckets" not in summary


def test_the_card(plan: PatternPlan, tmp_path: Path) -> None:
    evidence = dataclasses.replace(EVIDENCE, command="x | <script>`a`", device="\n# heading")
    dataclasses.replace(plan, evidence=evidence).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    front = card.split("---\n")[1]
    assert 'base_model: "somebody/tiny-wan"' in front
    assert "- sparsediff\n" in front
    assert "enable_sparse_attention(" in card
    assert "<script>" not in card
    assert "\n# heading" not in card
    assert "strict=False" in card
    local = dataclasses.replace(EVIDENCE, model="./models/mine")
    dataclasses.replace(plan, evidence=local).save_pretrained(tmp_path)
    assert "base_model" not in (tmp_path / "README.md").read_text()


def test_unfit_parts(plan: PatternPlan) -> None:
    fewer = plan.table.buckets
    table = dataclasses.replace(plan.table, buckets=tuple(bucket[:2] for bucket in fewer))
    with pytest.raises(SparseError, match=r"2 layers with 4 heads.*3 layers with 6"):
        dataclasses.replace(plan, table=table)
    with pytest.raises(SparseError, match=r"Evidence.density = 1.7: needs a number >= 0 and <= 1"):
        Evidence(density=1.7)
    with pytest.raises(SparseError, match=r"Evidence.budget = 'densty'.*Did you mean 'density'"):
        Evidence(budget="densty")


def test_nothing_is_written_that_could_not_be_read(plan: PatternPlan, tmp_path: Path) -> None:
    far = with_heads(plan.table, lambda _: PlannedHead(pattern=Diagonal(half_width=1e30)))
    with pytest.raises(PlanError, match=r"buckets\[0\]\[0\]\[0\].half_width = 1e\+30"):
        dataclasses.replace(plan, table=far).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_digest() -> None:
    model = wan().transformer
    digest = Fingerprint.of(model).weights
    assert digest is not None
    assert Fingerprint.of(wan().transformer).weights == digest
    model.to(torch.bfloat16)
    assert Fingerprint.of(model).weights == digest
    model.fuse_qkv_projections()
    assert Fingerprint.of(model).weights == digest
    with torch.no_grad():
        model.blocks[1].attn1.to_k.weight.mul_(1.5)
    assert Fingerprint.of(model).weights not in (digest, None)
    assert Fingerprint.of(wan().transformer.to(torch.float16)).weights is None
    assert Fingerprint.of(wan().transformer.to("meta")).weights is None


def test_skip_only_heads_and_block_edges(plan: PatternPlan, tmp_path: Path) -> None:
    """The last block of the grid is a legal column, and heads without any error are as they were."""
    last = GRID.tokens // BLOCK - 1

    def head(_: PlannedHead) -> PlannedHead:
        return PlannedHead(pattern=Stripe(columns=(0, last)))

    for change in (head, lambda _: PlannedHead(pattern=Skip())):
        changed = dataclasses.replace(plan, table=with_heads(plan.table, change))
        changed.save_pretrained(tmp_path)
        assert PatternPlan.from_pretrained(tmp_path) == changed
