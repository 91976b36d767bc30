"""A rebound processor and diffusers' own share no compiled code, though they are of the same source."""

from __future__ import annotations

import torch
import torch._dynamo
from tiny_pipelines import FAMILIES

# Two steps of float32; the compiled backend is eager and differs by its order of summation at most.
NOISE = 1e-5


def test_functions_compiled_apart_from_their_block_survive_disabling() -> None:
    """Past its limit of graphs for one function torch.compile compiles what that calls on its own."""
    mochi = FAMILIES["mochi"]
    pipe = mochi.build()
    dense = mochi.run(pipe, steps=2)
    torch._dynamo.reset()
    for block in pipe.transformer.transformer_blocks:
        block.attn1.compile(backend="eager")
    with torch._dynamo.config.patch(recompile_limit=1):
        session = pipe.enable_sparse_attention(density=0.3, block_size=8, warmup=0.5, gate=False)
        mochi.run(pipe, steps=2)
        assert session.report().sparse_calls == mochi.calls(1)
        session.disable()
        again = mochi.run(pipe, steps=2)
    torch._dynamo.reset()
    assert float((again - dense).norm() / dense.norm()) < NOISE
