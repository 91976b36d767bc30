"""The pooled kernel: a mean key of ln n more counts as n copies of itself, which float64 computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask
from calls import SCALE, Call, random_mask
from poisoned_memory import nan_in_new_tensors

from sparsediff.kernels.inputs import attention_inputs
from sparsediff.kernels.remainder import pool_blocks
from sparsediff.kernels.triton import TritonBackend


@pytest.mark.parametrize("lens", [None, (0, 90), (33, 64)])
@pytest.mark.parametrize("dim", [16, 24])
def test_blocks_left_out_count_as_copies_of_their_mean(
    lens: tuple[int, ...] | None, dim: int
) -> None:
    block = (32, 32)
    call = Call(mask=random_mask(50, 90, block, density=0.4), batch=2, dim=dim, kv_lens=lens)
    q, k, v = call.inputs()
    pooled = pool_blocks(k, v, block[1], call.lens)
    inputs = attention_inputs(q, k, v, call.mask, scale=SCALE, kv_lens=call.lens, return_lse=True)
    with nan_in_new_tensors():
        out, lse = TritonBackend().attention(replace(inputs, pooled=pooled))
    left_out = ~call.mask.to_dense().expand(2, 2, -1, -1)
    copied = token_mask(left_out, block, 50, 90, call.lens)
    keys, values = (
        torch.cat([x, mean.repeat_interleave(block[1], dim=1)[:, :90]], dim=1)
        for x, mean in ((k, pooled.keys), (v, pooled.values))
    )
    keep = torch.cat([call.keep().expand_as(copied), copied], dim=3)
    check_attention(out, lse, exact_attention(q, keys, values, keep, SCALE))
