"""Computed patterns: the same bits as the lists they stand for, heads of all modes in one launch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask
from gpu_call import SCALE, GpuCall

from sparsediff.kernels.block_rules import Diagonals, Full, Listed, Rule, Skip, Stripes, rule_mask

RULES: tuple[Rule, ...] = (
    Diagonals(half_width=40),
    Diagonals(half_width=5, period=150),
    Stripes(period=200, width=70, first=30),
    Full(),
    Skip(),
    Listed(),
)


@pytest.mark.parametrize("text", [(0, 0), (70, 0), (0, 30), (10, 90)])
@pytest.mark.parametrize("tokens", [512, 777])
def test_all_modes(
    device: torch.device, half: torch.dtype, tokens: int, text: tuple[int, int]
) -> None:
    call = GpuCall(
        device=device, dtype=half, batch=1, heads=len(RULES), q_len=tokens, kv_len=tokens
    )
    mask = rule_mask(
        RULES,
        block_size=call.block,
        q_len=tokens,
        kv_len=tokens,
        text_before=text[0],
        text_after=text[1],
        listed=call.chosen(),
    )
    tensors = call.tensors()
    out, lse = call.run(*tensors, mask=mask.to(device))
    keep = token_mask(mask.to_dense(), call.block, tokens, tokens)
    exact = exact_attention(*(x.cpu() for x in tensors), keep, SCALE)
    check_attention(out.cpu(), lse.cpu(), exact)
    listed = dataclasses.replace(mask, rules=None).to(device)
    by_list = call.run(*tensors, mask=listed)
    assert mask.rules is not None
    assert torch.equal(out, by_list[0])
    assert torch.equal(lse, by_list[1])
