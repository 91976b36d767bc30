"""Hard-concrete gates: their draws, their expected L0 by counting, and the penalties of the code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.hard_concrete import HardConcrete

EXACT = HardConcrete(damping=0.0)
LOGITS = torch.tensor([-6.0, -3.0, -2.0, -1.0, 0.0, 0.5, 2.0, 3.0])
COUNT = 20_000
# The middles of COUNT equal parts of 0..1: a share of them is a probability to within 1 / COUNT.
MIDDLES = ((torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT).float()[:, None]


def test_expected_l0_is_the_share_of_draws_whose_gate_is_not_zero() -> None:
    counted = (EXACT.gates(LOGITS, MIDDLES) > 0).double().mean(dim=0)
    assert float((counted - EXACT.expected_l0(LOGITS)).abs().max()) <= 1.5 / COUNT
    assert 0 < float(counted[0]) < 0.03
    assert 0.98 < float(counted[-1]) < 1


def test_its_gradient_is_that_of_the_probability() -> None:
    logits, step = LOGITS.double(), 1e-2
    logits.requires_grad_()
    EXACT.expected_l0(logits).sum().backward()
    sides = [(EXACT.gates(LOGITS + d, MIDDLES) > 0).double().mean(dim=0) for d in (step, -step)]
    counted = (sides[0] - sides[1]) / (2 * step)
    # Each side is counted to within 1 / COUNT; the central difference is off by step² / 6 at most.
    assert logits.grad is not None
    assert float((counted - logits.grad).abs().max()) <= 1 / (COUNT * step) + step**2


@pytest.mark.parametrize("damping", [0.1, 0.5, 1.0])
def test_damping_bounds_the_noise(damping: float) -> None:
    """And the probability is that of the docstring, which is 1 where training starts."""
    damped = HardConcrete(damping=damping)
    counted = (damped.gates(LOGITS, MIDDLES) > 0).double().mean(dim=0)
    said = ((1 + 2 * damping) * EXACT.expected_l0(LOGITS) - damping).clamp(0, 1)
    assert float((counted - said).abs().max()) <= 1.5 / COUNT
    assert float(counted[-1]) == 1
    torch.testing.assert_close(damped.expected_l0(LOGITS), EXACT.expected_l0(LOGITS))
    noise = math.log((1 + damping) / damping)
    ends = damped.gates(LOGITS, torch.tensor([[0.0], [1.0]]))
    for gate, sign in zip(ends, (-1, 1), strict=True):
        wanted = (1.2 * ((LOGITS + sign * noise) / 0.83).sigmoid() - 0.1).clamp(0, 1)
        torch.testing.assert_close(gate, wanted)


def test_all_draws_make_gates() -> None:
    """Even 0, which torch.rand gives, without damping."""
    logits = LOGITS.clone().requires_grad_()
    gates = EXACT.gates(logits, torch.tensor([[0.0], [0.5], [1.0 - 2.0**-24]]))
    gates.sum().backward()
    assert torch.equal(gates[0], torch.zeros(8))
    assert torch.equal(EXACT.likely(LOGITS), gates[1])
    assert bool((gates[2] > gates[1])[gates[1] < 1].all())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_the_mean_gate_rises_with_the_logit() -> None:
    means = EXACT.gates(LOGITS, MIDDLES).mean(dim=0)
    assert bool((means[1:] > means[:-1]).all())


def test_the_penalties_of_the_code() -> None:
    expected: dict[Any, Tensor] = {
        "l0": (LOGITS - 0.83 * math.log(0.1 / 1.1)).sigmoid().mean(),
        "l1": LOGITS.abs().mean(),
        "bounded-l1": (0.4 * LOGITS + 1).sigmoid().mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(EXACT.penalty(LOGITS, name), value)
    assert EXACT.penalty(LOGITS) == EXACT.penalty(LOGITS, "l0")


def test_draws_in_float16_are_computed_in_float32() -> None:
    assert EXACT.gates(LOGITS.half(), MIDDLES).dtype == torch.float32
    assert EXACT.expected_l0(LOGITS.half()).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"damping": -0.1},
        {"damping": math.nan},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"low": 0.0},
        {"high": 1.0},
    ],
)
def test_values_that_make_no_gates(wrong: dict[str, float]) -> None:
    with pytest.raises(SparseError, match=next(iter(wrong))):
        HardConcrete(**wrong)


def test_an_unknown_regulariser() -> None:
    with pytest.raises(SparseError, match="regulariser='l2'"):
        EXACT.penalty(LOGITS, "l2")  # type: ignore[arg-type]
