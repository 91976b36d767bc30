"""Caches that skip blocks or attention, switched on before and after sparse attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from counted import OPTIONS, calls
from seen_calls import SeenCalls
from tiny_pipelines import FAMILIES

WAN = FAMILIES["wan"]
STEPS = 8


def broadcast(pipe: Any) -> Any:
    return diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        spatial_attention_block_identifiers=("blocks",),
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def faster(pipe: Any) -> Any:
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 901),
        spatial_attention_block_identifiers=("blocks",),
        attention_weight_callback=lambda _: 0.5,
        is_guidance_distilled=True,
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def taylor(pipe: Any) -> Any:
    return diffusers.TaylorSeerCacheConfig(
        cache_interval=2, disable_cache_before_step=2, cache_identifiers=[r"blocks\.\d+\.attn1"]
    )


def mag(pipe: Any) -> Any:
    return diffusers.MagCacheConfig(
        threshold=1e9, max_skip_steps=2, num_inference_steps=STEPS, mag_ratios=torch.ones(STEPS)
    )


def first_block(pipe: Any) -> Any:
    return diffusers.FirstBlockCacheConfig(threshold=1e9)


CACHES = [broadcast, faster, taylor, mag, first_block]


@pytest.mark.parametrize("cache", CACHES, ids=[cache.__name__ for cache in CACHES])
def test_the_order_of_enabling_does_not_matter(cache: Callable[[Any], Any]) -> None:
    """Steps are those of the pipeline although calls are skipped; undone in either order."""
    ran = []
    for cache_first in (True, False):
        pipe = WAN.build()
        dense = WAN.run(pipe, steps=STEPS)
        if cache_first:
            pipe.transformer.enable_cache(cache(pipe))
        session = pipe.enable_sparse_attention(**OPTIONS)
        if not cache_first:
            pipe.transformer.enable_cache(cache(pipe))
        out = WAN.run(pipe, steps=STEPS)
        assert torch.isfinite(out).all()
        sparse, full = calls(pipe)
        assert 0 < sparse + full < 6 * STEPS, "the cache skipped some"
        rows = session.report().steps
        assert {row["step"] for row in rows} <= set(range(STEPS))
        for row in rows:
            kind = "sparse_calls" if row["step"] < 2 else "dense_calls"
            assert row[kind] == 0, "the first quarter is dense, the rest is not"
        ran.append((out, sparse, full))
        for undo in (pipe.disable_sparse_attention, pipe.transformer.disable_cache)[
            :: 1 if cache_first else -1
        ]:
            undo()
        assert torch.equal(WAN.run(pipe, steps=STEPS), dense)
    assert ran[0][1:] == ran[1][1:]
    assert torch.equal(ran[0][0], ran[1][0])


def test_first_block_cache_skips_calls(pipe: Any) -> None:
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e9))
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    # The first block runs at all 4 steps of both branches, the others only at the first step.
    assert calls(pipe) == (6, 6)
    pipe.disable_sparse_attention()
    pipe.transformer.disable_cache()
    assert "forward" not in vars(pipe.transformer)


def test_faster_cache_halves_the_batch() -> None:
    """Guidance in one batch is then predicted every other step: patterns are those of each batch."""
    family = FAMILIES["cogvideox"]
    pipe = family.build()
    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    pipe.transformer.enable_cache(
        diffusers.FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 681),
            unconditional_batch_skip_range=2,
            unconditional_batch_timestep_skip_range=(-1, 781),
            attention_weight_callback=lambda _: 0.5,
            tensor_format="BFCHW",
            current_timestep_callback=lambda: pipe.current_timestep,
        )
    )
    assert torch.isfinite(family.run(pipe, steps=STEPS)).all()
    assert {call.rows for call in seen.calls} == {1, 2}
    assert seen.dense_steps == [0, 1]
    assert set(seen.sparse_steps) <= set(range(2, STEPS))
    assert seen.session.report().fallbacks == {}
    assert 0 < seen.session.report().sparse_calls < 2 * (STEPS - 2)
