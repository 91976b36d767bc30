"""Who competes backward: the dense kernels' gradients against those of the sparse backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sparsediff.bench import hopper_switch
from sparsediff.bench.contestant import Contestant
from sparsediff.bench.forward_pass import BOTH_LAYOUTS, check_backend
from sparsediff.bench.gradient_accuracy import gradient_error
from sparsediff.bench.plan import Plan, Shape
from sparsediff.bench.problem import Problem, random_mask
from sparsediff.kernels import BlockMask, block_sparse_attention
from sparsediff.kernels.dense_kernels import dense_attention, find_dense_kernel

BACKWARD_FLOP = 2.5  # of the forward pass: five products instead of two
BASELINES = BOTH_LAYOUTS  # FlexAttention's backward would compile for every shape


class GradientRun:
    """The gradients of one output; the forward pass belongs to the first run only."""

    def __init__(self, leaves: Problem, forward: Callable[[], Tensor]) -> None:
        self._leaves, self._forward = leaves, forward
        self._out: Tensor | None = None
        generator = torch.Generator(leaves.q.device).manual_seed(2)
        self.grad = torch.randn(
            leaves.q.shape, generator=generator, dtype=leaves.q.dtype, device=leaves.q.device
        )

    def __call__(self) -> tuple[Tensor, ...]:
        """dq, dk, dv ``[1, s, h, d]``."""
        if self._out is None:
            self._out = self._forward()
        return torch.autograd.grad(self._out, self._leaves.tensors, self.grad, retain_graph=True)


def dense_backward(plan: Plan, shape: Shape, problem: Problem) -> Iterator[list[Contestant]]:
    """Gradients of cuDNN's and of FlashAttention's dense kernel, in both layouts."""
    for name in BASELINES:
        if name not in plan.baselines or find_dense_kernel(name).reasons(*problem.tensors):
            continue
        group = []
        for layout, case in (("bshd", problem), ("bhsd", problem.heads_first())):
            leaves = case.requiring_grad()
            forward = partial(dense_attention, name, *leaves.tensors, scale=leaves.scale)
            one = _contestant(name, shape, leaves, forward, None)
            group.append(replace(one, layout=layout, baseline=True))
        yield group


def sparse_backward(plan: Plan, shape: Shape, problem: Problem) -> Iterator[Contestant]:
    """Gradients of every backend at every density."""
    for density in plan.densities:
        kept = plan.kept_blocks(density, shape.tokens)
        mask = random_mask(shape, plan.block_size, kept, plan.device)
        for name in hopper_switch.without(plan.backends):
            leaves = problem.requiring_grad()
            check_backend(name, leaves, mask)
            forward = partial(
                block_sparse_attention, *leaves.tensors, mask, scale=leaves.scale, backend=name
            )
            yield replace(_contestant(name, shape, leaves, forward, mask), ours=True)


def _contestant(
    name: str,
    shape: Shape,
    leaves: Problem,
    forward: Callable[[], Tensor],
    mask: BlockMask | None,
) -> Contestant:
    density = 1.0 if mask is None else mask.density
    run = GradientRun(leaves, forward)
    return Contestant(
        kernel=name,
        of="backward",
        density=density,
        flop=shape.flop * density * BACKWARD_FLOP,
        run=run,
        check=partial(gradient_error, problem=leaves, grad=run.grad, mask=mask),
    )
