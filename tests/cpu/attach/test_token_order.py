"""Token orders through real pipelines: text first, text last, none; eager, compiled, and put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from tiny_pipelines import FAMILIES, Family
from torch._dynamo.testing import CompileCounter

import sparsediff
from sparsediff.search.arrangement import arrangements

STEPS = 4
# As in test_families.py: float32 sums in another order, through four steps of random networks.
NOISE = 1e-4


@pytest.fixture(params=["wan", "cogvideox", "flux", "hunyuan_video"])
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(params=["raster", "tile", "gilbert"])
def order(request: pytest.FixtureRequest) -> str:
    return request.param


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_density_one_equals_dense(family: Family, order: str) -> None:
    pipe = family.build()
    dense = family.run(pipe, steps=STEPS)
    for method in ("adaspa", "window"):
        session = pipe.enable_sparse_attention(
            method, density=1.0, block_size=16, warmup=0.0, token_order=order, gate=False
        )
        sparse = family.run(pipe, steps=STEPS)
        report = session.report()
        assert report.sparse_calls == family.calls(STEPS)
        assert (report.dense_calls, report.fallbacks) == (0, {})
        assert report.method["token_order"] == order
        assert relative(sparse, dense) < NOISE
        pipe.disable_sparse_attention()


def test_sparse_runs_and_is_put_back(family: Family, order: str) -> None:
    pipe = family.build()
    dense = family.run(pipe, steps=STEPS)
    options: dict[str, Any] = {"block_size": 8, "warmup": 0.25, "gate": False}
    session = pipe.enable_sparse_attention(density=0.3, token_order=order, **options)
    sparse = family.run(pipe, steps=STEPS)
    report = session.report()
    per_step = family.calls(1)
    assert (report.dense_calls, report.sparse_calls) == (per_step, per_step * (STEPS - 1))
    assert report.fallbacks == {}
    assert relative(sparse, dense) > 10 * NOISE
    pipe.disable_sparse_attention()
    assert torch.equal(family.run(pipe, steps=STEPS), dense)
    if order != "raster":
        pipe.enable_sparse_attention(density=0.3, **options)
        assert relative(family.run(pipe, steps=STEPS), sparse) > 10 * NOISE, "other blocks"


def test_planned_dense_steps_are_bit_exact(order: str) -> None:
    """All steps but the last are dense: what they computed is what the plain model computes."""
    family = FAMILIES["wan"]
    seen: dict[str, list[torch.Tensor]] = {}

    def run(pipe: Any, name: str) -> None:
        def keep(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.setdefault(name, []).append(tensors["latents"].clone())
            return tensors

        family.run(pipe, steps=STEPS, callback_on_step_end=keep)

    pipe = family.build()
    run(pipe, "dense")
    session = pipe.enable_sparse_attention(
        "window", density=0.3, block_size=8, warmup=0.75, token_order=order, gate=False
    )
    run(pipe, "sparse")
    assert session.report().dense_calls == family.calls(3)
    for dense, sparse in zip(seen["dense"][:3], seen["sparse"][:3], strict=True):
        assert torch.equal(dense, sparse)
    assert not torch.equal(seen["dense"][3], seen["sparse"][3])


def test_chroma_with_a_short_text(order: str) -> None:
    """diffusers adds a mask of ones and zeros to the scores: a short text's padding counts less."""
    family = FAMILIES["chroma"]
    pipe = family.build()
    dense = family.run(pipe, steps=2, prompt="a red box")
    for density, low, high in ((1.0, 0.0, NOISE), (0.3, 10 * NOISE, 1.0)):
        session = pipe.enable_sparse_attention(
            "window", density=density, block_size=8, token_order=order, gate=False
        )
        sparse = family.run(pipe, steps=2, prompt="a red box")
        report = session.report()
        assert (report.sparse_calls, report.fallbacks) == (family.calls(2), {})
        assert low <= relative(sparse, dense) < high
        pipe.disable_sparse_attention()


@pytest.mark.parametrize("order", ["tile", "gilbert"])
def test_compiling_keeps_one_graph(order: str) -> None:
    family = FAMILIES["wan"]
    options = {"density": 0.4, "block_size": 8, "warmup": 0.25, "token_order": order, "gate": False}
    pipe = family.build()
    pipe.enable_sparse_attention(**options)
    eager = family.run(pipe, steps=STEPS)
    pipe.disable_sparse_attention()
    torch._dynamo.reset()
    counter = CompileCounter()
    session = pipe.enable_sparse_attention(**options)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    compiled = family.run(pipe, steps=STEPS)
    torch._dynamo.reset()
    assert counter.frame_count == 1
    assert session.report().sparse_calls == family.calls(3)
    assert session.report().fallbacks == {}
    assert relative(compiled, eager) < NOISE


def test_the_permutation_is_made_once() -> None:
    family = FAMILIES["wan"]
    pipe = family.build()
    pipe.enable_sparse_attention(
        density=0.4, block_size=8, warmup=0.25, token_order="tile", gate=False
    )
    arrangements.cache_clear()
    family.run(pipe, steps=STEPS)
    assert pipe.sparse_attention_report().sparse_calls == family.calls(3)
    info = arrangements.cache_info()
    assert (info.misses, info.hits) == (1, family.calls(STEPS) - 1)


@pytest.mark.parametrize("bad", ["hilbert", "tile-8", 3])
def test_an_unknown_order_is_an_error(bad: object) -> None:
    pipe = FAMILIES["wan"].build()
    with pytest.raises(sparsediff.SparseError, match=f"token_order={bad!r}: needs one of"):
        pipe.enable_sparse_attention(token_order=bad)
