"""Every supported family through its real pipeline: what is promised of one is promised of all.

``make models`` runs this class and writes its results into docs/models.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch._dynamo
from tiny_pipelines import FAMILIES, Family
from torch._dynamo.testing import CompileCounter
from untouched import states

import sparsediff

STEPS = 4
# Four steps of float32 sampling; a call differs from the stock kernel by its order of summation, about
# 1e-6 relative, and the random residual networks amplify that by less than 30.
NOISE = 1e-4


@pytest.fixture(params=FAMILIES.values(), ids=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def spied(session: Any) -> Counter[tuple[str, int]]:
    """(branch, rows of the batch) of every call that reaches the session, as they come in."""
    seen: Counter[tuple[str, int]] = Counter()
    attend = session.attend

    def spy(layer: int, q: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = attend(layer, q, *args, **kwargs)
        seen[session.progress.branch, q.shape[0]] += 1
        return out

    session.attend = spy
    return seen


def compile_blocks(pipe: Any, family: Family) -> CompileCounter:
    """Compile every block that holds self-attention; the counter knows the graphs made."""
    torch._dynamo.reset()
    counter = CompileCounter()
    for model in sparsediff.models.denoisers(pipe).values():
        facts = sparsediff.models.facts_of(model)
        for name in sparsediff.models.self_attention(model, facts):
            block = model.get_submodule(name.rpartition(".")[0])
            block.compile(fullgraph=not family.graphs, backend=counter)
    return counter


class TestFamily:
    @pytest.mark.parametrize("method", ["adaspa", "window", "random"])
    def test_density_one_equals_dense(self, family: Family, method: str) -> None:
        pipe = family.build()
        dense = family.run(pipe, steps=STEPS)
        pipe.enable_sparse_attention(method, density=1.0, block_size=16, warmup=0.0, gate=False)
        sparse = family.run(pipe, steps=STEPS)
        report = pipe.sparse_attention_report()
        assert report.sparse_calls == family.calls(STEPS)
        assert report.dense_calls == 0
        assert report.fallbacks == {}
        assert report.density == pytest.approx(1.0)
        assert relative(sparse, dense) < NOISE

    def test_sparse_runs_and_is_counted(self, family: Family) -> None:
        pipe = family.build()
        dense = family.run(pipe, steps=STEPS)
        session = sparsediff.enable_sparse_attention(
            pipe, density=0.3, block_size=8, warmup=0.25, gate=False
        )
        sparse = family.run(pipe, steps=STEPS)
        report = session.report()
        per_step = family.calls(1)
        assert (report.dense_calls, report.sparse_calls) == (per_step, per_step * (STEPS - 1))
        assert report.fallbacks == {}
        assert [row["dense_calls"] for row in report.steps] == [per_step, 0, 0, 0]
        assert report.sparse_density < 0.75
        assert report.density == pytest.approx(0.25 + 0.75 * report.sparse_density)
        assert sum(report.backends.values()) == report.sparse_calls
        assert relative(sparse, dense) > 10 * NOISE
        assert torch.isfinite(sparse).all()

    def test_undo_is_bit_exact(self, family: Family) -> None:
        pipe = family.build()
        dense = family.run(pipe, steps=STEPS)
        after_run = states(pipe)
        pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
        family.run(pipe, steps=STEPS)
        assert pipe.sparse_attention_report().sparse_calls > 0
        pipe.disable_sparse_attention()
        assert states(pipe) == after_run
        assert torch.equal(family.run(pipe, steps=STEPS), dense)

        fresh = family.build()
        before = states(fresh)
        fresh.enable_sparse_attention("window", gate=False)
        assert states(fresh) != before
        fresh.disable_sparse_attention()
        assert states(fresh) == before

    def test_batch_rows_do_not_mix(self, family: Family) -> None:
        if family.alone:
            pytest.skip(family.alone)
        pipe = family.build()
        pipe.enable_sparse_attention(
            density=0.4, block_size=8, warmup=0.25, head_budgets=False, gate=False
        )
        one = family.run(pipe, steps=STEPS, seed=1)
        two = family.run_two(pipe, steps=STEPS, seeds=(0, 1))
        assert pipe.sparse_attention_report().sparse_calls > 0
        assert relative(two[1:], one) < 10 * NOISE

    def test_guidance_branches_keep_apart(self, family: Family) -> None:
        pipe = family.build()
        session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
        seen = spied(session)
        family.run(pipe, steps=STEPS)
        branches = {branch for branch, _ in seen}
        rows = {rows for _, rows in seen}
        assert sum(seen.values()) == family.calls(STEPS)
        assert len(branches) == (2 if family.guidance == "two calls" else 1)
        at_once = 2 if family.guidance == "one batch" and family.row_calls == 1 else 1
        assert rows == {at_once * family.rows}

    def test_compiling_adds_no_graph(self, family: Family) -> None:
        options: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25, "gate": False}
        pipe = family.build()
        pipe.enable_sparse_attention(**options)
        eager = family.run(pipe, steps=STEPS)
        pipe.disable_sparse_attention()
        dense = compile_blocks(pipe, family)
        family.run(pipe, steps=STEPS)
        sparse_pipe = family.build()
        session = sparse_pipe.enable_sparse_attention(**options)
        sparse = compile_blocks(sparse_pipe, family)
        compiled = family.run(sparse_pipe, steps=STEPS)
        report = session.report()
        assert report.fallbacks == {}
        assert report.sparse_calls == family.calls(STEPS) * 3 // 4
        if not family.graphs:
            assert sparse.frame_count == dense.frame_count > 0
        assert relative(compiled, eager) < NOISE
