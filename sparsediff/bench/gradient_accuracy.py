"""How far gradients are from float64: one head computed exactly, one block of queries after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.bench.accuracy import (
    BACKWARD,
    DENSE_ROWS,
    Probe,
    allowance,
    exact_rows,
    kept_keys,
    relative_error,
)
from sparsediff.bench.problem import Problem
from sparsediff.kernels import BlockMask
from sparsediff.kernels.block_mask import block_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """Of one head in float64: ``q``, ``k``, ``v`` ``[s, d]``; ``largest`` as in accuracy."""

    q: Tensor
    k: Tensor
    v: Tensor
    largest: float


def exact_gradients(problem: Problem, grad: Tensor, mask: BlockMask | None, head: int) -> Gradients:
    """dq, dk and dv of one head for the gradient `grad` ``[1, s, h, d]`` of the output."""
    queries, keys, values = (x.detach()[0, :, head].double() for x in problem.tensors)
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (queries, keys, values))
    block = DENSE_ROWS if mask is None else mask.block_size[0]
    largest = 0.0
    for row in range(block_count(problem.tokens, block)):
        part = slice(row * block, min(problem.tokens, (row + 1) * block))
        probe = Probe(head=head, row=row, first=part.start, end=part.stop)
        exact = exact_rows(problem, probe, kept_keys(mask, probe, problem.k))
        g = grad[0, part, head].double()
        delta = (g * (exact.weights @ values)).sum(dim=-1, keepdim=True)
        ds = exact.weights * (g @ values.T - delta)
        grad_q[part] = problem.scale * (ds @ keys)
        grad_k += problem.scale * (ds.T @ queries[part])
        grad_v += exact.weights.T @ g
        largest = max(largest, exact.largest)
    return Gradients(q=grad_q, k=grad_k, v=grad_v, largest=largest)


@torch.no_grad()
def gradient_error(
    found: tuple[Tensor, ...], problem: Problem, grad: Tensor, mask: BlockMask | None
) -> float:
    """Error of dq, dk, dv ``[1, s, h, d]`` in the last head over its allowance; inf unless finite."""
    if not all(bool(x.isfinite().all()) for x in found):
        return math.inf
    head = problem.q.shape[2] - 1
    exact = exact_gradients(problem, grad, mask, head)
    allowed = allowance(problem, roundings=BACKWARD, keys=problem.tokens, largest=exact.largest)
    pairs = zip(found, (exact.q, exact.k, exact.v), strict=True)
    return max(relative_error(x[0, :, head], right) for x, right in pairs) / allowed
