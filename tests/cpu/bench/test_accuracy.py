"""The checks against float64 pass right results and catch every planted fault."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparsediff.bench.accuracy import (
    attention_error,
    kept_keys,
    mass_error,
    probes,
    selection_error,
)
from sparsediff.bench.contestant import poisoned
from sparsediff.bench.gradient_accuracy import gradient_error
from sparsediff.bench.plan import Shape
from sparsediff.bench.problem import Problem, make_problem, random_mask
from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention, dense_attention_lse

SHAPE = Shape(tokens=300, heads=3, dim=32)
BLOCK = (64, 32)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=DTYPES, ids=str)
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(SHAPE, request.param, "cpu")


@pytest.fixture
def mask() -> BlockMask:
    return random_mask(SHAPE, BLOCK, 4, "cpu")


def attend(problem: Problem, mask: BlockMask) -> Tensor:
    return block_sparse_attention(*problem.tensors, mask, scale=problem.scale, backend="reference")


def test_probes_cover_first_and_ragged_last() -> None:
    found = probes(300, 3, 64)
    assert [(p.head, p.first, p.end) for p in found] == [(0, 0, 64), (1, 128, 192), (2, 256, 300)]
    assert len(probes(40, 1, 64)) == 1


def test_kept_keys_are_the_masks(problem: Problem, mask: BlockMask) -> None:
    dense = mask.to_dense().repeat_interleave(32, dim=3)[..., :300]
    for probe in probes(300, 3, 64):
        assert torch.equal(kept_keys(mask, probe, problem.k), dense[0, probe.head, probe.row])
        assert kept_keys(None, probe, problem.k).all()


def test_right_attention(problem: Problem, mask: BlockMask) -> None:
    assert 0 < attention_error(attend(problem, mask), problem, mask) < 0.5
    full = BlockMask.full(block_size=BLOCK, q_len=300, kv_len=300)
    assert attention_error(attend(problem, full), problem, None) < 0.5


def test_faults_of_attention(problem: Problem, mask: BlockMask) -> None:
    right = attend(problem, mask)
    fewer = BlockMask(
        counts=mask.counts - 1, indices=mask.indices, block_size=BLOCK, q_len=300, kv_len=300
    )
    assert attention_error(attend(problem, fewer), problem, mask) > 1
    for place in ((0, 3, 0, 5), (0, 299, 2, 31), (0, 150, 1, 0)):
        wrong = right.clone()
        wrong[place] += right.abs().max() / 8
        assert attention_error(wrong, problem, mask) > 1
    wrong = right.clone()
    wrong[0, 70, 0, 0] = math.nan  # not among the probes
    assert attention_error(wrong, problem, mask) == math.inf


def test_mass(problem: Problem) -> None:
    q, k, _ = problem.tensors
    lse = dense_attention_lse(*problem.tensors, scale=problem.scale)[1]
    right = block_mass(q, k, lse, block_size=BLOCK, scale=problem.scale, backend="reference")
    assert mass_error(right, problem, lse, BLOCK) < 0.5
    for head, row, column in ((0, 0, 0), (2, 4, 9)):
        wrong = right.clone()
        wrong[0, head, row, column] *= 1.01
        assert mass_error(wrong, problem, lse, BLOCK) > 1
    wrong = right.clone()
    wrong[0, 1, 1, 1] = math.nan
    assert mass_error(wrong, problem, lse, BLOCK) == math.inf


def test_selection(mask: BlockMask) -> None:
    k = torch.zeros(1, 300, 3, 32)
    mass = torch.rand(1, 3, 5, 10) + mask.to_dense() * 2.0
    assert selection_error(mask, mass, k) == 0
    assert selection_error(mask, -mass, k) == math.inf
    empty = BlockMask(
        counts=mask.counts * 0, indices=mask.indices, block_size=BLOCK, q_len=300, kv_len=300
    )
    assert selection_error(empty, mass, k) == math.inf


def test_gradients(problem: Problem, mask: BlockMask) -> None:
    leaves = problem.requiring_grad()
    grad = torch.randn(leaves.q.shape).to(leaves.q.dtype)
    found = torch.autograd.grad(attend(leaves, mask), leaves.tensors, grad)
    assert 0 < gradient_error(found, leaves, grad, mask) < 0.5
    for part in range(3):
        wrong = [x.clone() for x in found]
        wrong[part][0, 77, 2] = 0
        assert gradient_error(tuple(wrong), leaves, grad, mask) > 1
    wrong = [x.clone() for x in found]
    wrong[1][0, 0, 0, 0] = math.nan
    assert gradient_error(tuple(wrong), leaves, grad, mask) == math.inf
    assert gradient_error(found, leaves, grad, None) > 1  # of another pattern


def test_poisoned_memory() -> None:
    with poisoned():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
