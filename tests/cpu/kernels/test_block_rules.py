"""Rules against token pairs, one by one; the kernels that compute them are held in tests/gates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsediff.kernels import SparseError
from sparsediff.kernels.block_rules import Diagonals, Full, Listed, Rule, Skip, Stripes, rule_mask

Q_LEN, KV_LEN = 75, 90


def takes(rule: Rule, q: int, k: int) -> bool:
    """Whether a rule computes the token pair."""
    if isinstance(rule, Diagonals):
        away = abs(k - q)
        if rule.period is not None:
            away = min(away % rule.period, -away % rule.period)
        return away <= rule.half_width
    if isinstance(rule, Stripes):
        return (k - rule.first) % rule.period < rule.width
    return isinstance(rule, Full)


RULES = st.one_of(
    st.builds(Diagonals, half_width=st.integers(0, 20), period=st.none() | st.integers(1, 60)),
    st.integers(1, 50).flatmap(
        lambda period: st.builds(
            Stripes,
            period=st.just(period),
            width=st.integers(1, period),
            first=st.integers(0, 70),
        )
    ),
    st.just(Full()),
    st.just(Skip()),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rule=RULES,
    block=st.tuples(st.sampled_from((4, 8, 16)), st.sampled_from((4, 8, 16))),
    text=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_a_block_is_taken_if_one_of_its_token_pairs_is(
    rule: Rule, block: tuple[int, int], text: tuple[int, int]
) -> None:
    rows, columns = block
    before, after = text
    mask = rule_mask(
        [rule],
        block_size=block,
        q_len=Q_LEN,
        kv_len=KV_LEN,
        text_before=before,
        text_after=after,
    )
    found = mask.to_dense()[0, 0]
    for m in range(mask.q_blocks):
        for n in range(mask.kv_blocks):
            queries = range(m * rows, (m + 1) * rows)
            keys = range(n * columns, (n + 1) * columns)
            expected = any(takes(rule, q, k) for q in queries for k in keys)
            if not isinstance(rule, Skip):
                text_q = any(q < before or Q_LEN - after <= q < Q_LEN for q in queries)
                text_k = any(k < before or KV_LEN - after <= k < KV_LEN for k in keys)
                expected = expected or text_q or text_k
            assert bool(found[m, n]) == expected, (m, n)


def test_heads_of_all_kinds_share_a_mask_that_moves_with_its_rules() -> None:
    listed = torch.rand(1, 3, 10, 12) < 0.5
    mask = rule_mask(
        [Skip(), Listed(), Diagonals()],
        block_size=8,
        q_len=Q_LEN,
        kv_len=KV_LEN,
        listed=listed,
    )
    assert mask.counts[0, 0].sum() == 0
    assert torch.equal(mask.to_dense()[0, 1], listed[0, 1])
    assert mask.rules is not None
    assert mask.to("cpu").rules is not None
    assert mask.rules.table[:, 0].tolist()[:2] == [0, 0], "no rule, no period"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda: Diagonals(half_width=-1), "half_width >= 0"),
        (lambda: Diagonals(period=0), "period of at least 1"),
        (lambda: Stripes(period=4, width=5), "width <= period"),
        (lambda: rule_mask([], block_size=8, q_len=8, kv_len=8), "one rule per head"),
        (lambda: rule_mask([Listed()], block_size=8, q_len=8, kv_len=8), "take their blocks"),
        (
            lambda: rule_mask([Full()], block_size=8, q_len=8, kv_len=8, text_after=9),
            "9 tokens of text",
        ),
    ],
)
def test_bad_rules_are_errors(rules: object, message: str) -> None:
    with pytest.raises(SparseError, match=message):
        rules()  # type: ignore[operator]
