"""Every supported family through its real pipeline: dense stays dense, sparse runs, undo is exact."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import FAMILIES, Family
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


@pytest.mark.parametrize("method", ["adaspa", "window", "random"])
def test_density_one_equals_dense(family: Family, method: str) -> None:
    pipe = family.build()
    dense = family.run(pipe, steps=STEPS)
    pipe.enable_sparse_attention(method, density=1.0, block_size=16, warmup=0.0)
    sparse = family.run(pipe, steps=STEPS)
    report = pipe.sparse_attention_report()
    assert report.sparse_calls == family.layers * family.forwards * STEPS
    assert report.dense_calls == 0
    assert report.fallbacks == {}
    assert report.density == pytest.approx(1.0)
    assert relative(sparse, dense) < NOISE


def test_sparse_runs_and_is_counted(family: Family) -> None:
    pipe = family.build()
    dense = family.run(pipe, steps=STEPS)
    session = sparsediff.enable_sparse_attention(pipe, density=0.3, block_size=8, warmup=0.25)
    sparse = family.run(pipe, steps=STEPS)
    report = session.report()
    per_step = family.layers * family.forwards
    assert (report.dense_calls, report.sparse_calls) == (per_step, per_step * (STEPS - 1))
    assert report.fallbacks == {}
    assert [row["dense_calls"] for row in report.steps] == [per_step, 0, 0, 0]
    assert report.sparse_density < 0.7
    assert report.density == pytest.approx(0.25 + 0.75 * report.sparse_density)
    assert sum(report.backends.values()) == report.sparse_calls
    assert relative(sparse, dense) > 10 * NOISE
    assert torch.isfinite(sparse).all()


def test_disable_is_bit_exact(family: Family) -> None:
    pipe = family.build()
    before = states(pipe)
    dense = family.run(pipe, steps=STEPS)
    after_run = states(pipe)
    pipe.enable_sparse_attention("window", density=0.3, block_size=8)
    family.run(pipe, steps=STEPS)
    assert pipe.sparse_attention_report().sparse_calls > 0
    pipe.disable_sparse_attention()
    assert states(pipe) == after_run
    assert torch.equal(family.run(pipe, steps=STEPS), dense)

    fresh = family.build()
    before = states(fresh)
    fresh.enable_sparse_attention("window")
    assert states(fresh) != before
    fresh.disable_sparse_attention()
    assert states(fresh) == before


def test_batch_rows_do_not_mix(family: Family) -> None:
    pipe = family.build()
    pipe.enable_sparse_attention(density=0.4, block_size=8, warmup=0.25, head_budgets=False)
    one = family.run(pipe, steps=STEPS, seed=1)
    prompts = {"prompt": [family.call["prompt"]] * 2}
    if "negative_prompt" in family.call:
        prompts["negative_prompt"] = [family.call["negative_prompt"]] * 2
    noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    arguments = family.call | prompts | {"num_inference_steps": STEPS}
    two = pipe(generator=noise, output_type="latent", **arguments)[0]
    assert pipe.sparse_attention_report().sparse_calls > 0
    assert relative(two[1:], one) < 10 * NOISE
