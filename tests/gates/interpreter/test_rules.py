"""Computed patterns: heads that walk by their rule, against float64 on the pattern of their mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calls import Call
from rule_calls import RULES, mixed, spoilt

from sparsediff.kernels.block_mask import BlockMask


def check(mask: BlockMask, *, lens: tuple[int, ...] | None = None, batch: int = 1) -> None:
    """Against float64; without padding, whose blocks are counted on the lists, these are spoilt."""
    call = Call(mask=mask, heads=mask.counts.shape[1], kv_lens=lens, batch=batch, dim=16)
    call.check_forward(spoilt(mask) if lens is None else mask)


@pytest.mark.parametrize("block", [(32, 32), (64, 32), (32, 64)])
def test_every_kind_of_head_in_one_launch(block: tuple[int, int]) -> None:
    check(mixed(block))


@pytest.mark.parametrize(("before", "after"), [(5, 0), (40, 7)])
def test_text_at_the_ends_is_dense(before: int, after: int) -> None:
    check(mixed((32, 32), before=before, after=after, rules=RULES[:4]))


@pytest.mark.parametrize("lens", [(90,), (7,)])
def test_padded_keys(lens: tuple[int]) -> None:
    check(mixed((32, 32), after=20, rules=RULES[:4]), lens=lens)


def test_lengths_of_a_batch() -> None:
    check(mixed((32, 32), before=8, rules=RULES[:3]), lens=(103, 64), batch=2)


def test_gradients_of_computed_heads() -> None:
    mask = mixed((32, 32), after=9, rules=(RULES[0], RULES[2]))
    Call(mask=mask, heads=2, dim=16).check()


def test_rule_and_list_give_the_same_bits() -> None:
    mask = mixed((32, 32), before=5, rules=RULES[:3])
    call = Call(mask=mask, heads=3, dim=16)
    q, k, v = call.inputs()
    by_rule = replace(call, mask=spoilt(mask)).run(q, k, v)
    by_list = replace(call, mask=replace(mask, rules=None)).run(q, k, v)
    assert torch.equal(by_rule[0], by_list[0])
    assert torch.equal(by_rule[1], by_list[1])
