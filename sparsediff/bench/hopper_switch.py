"""The warp-specialised Hopper kernel as a contestant: the triton backend with its switch on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from sparsediff.bench.problem import Problem
from sparsediff.kernels import BlockMask, block_sparse_attention
from sparsediff.kernels.triton.hopper_launch import SWITCH, hopper_reasons

NAME = "triton-hopper"  # among the backends of a plan


def hopper_kernel_reasons(problem: Problem, block: tuple[int, int]) -> list[str]:
    """Why the kernel would not be the one that runs; empty when it is."""
    if problem.q.device.type != "cuda":
        return ["it needs a CUDA device"]
    major, minor = torch.cuda.get_device_capability(problem.q.device)
    return hopper_reasons(*problem.tensors, block_size=block, arch=10 * major + minor)


def without(backends: Iterable[str]) -> list[str]:
    """The names that are backends for every pass; this one has a forward pass only."""
    return [name for name in backends if name != NAME]


def hopper_run(problem: Problem, mask: BlockMask) -> Callable[[], Tensor]:
    """The forward pass with the switch on, and only then."""
    return partial(_run, problem, mask)


def _run(problem: Problem, mask: BlockMask) -> Tensor:
    with switched_on():
        return block_sparse_attention(*problem.tensors, mask, scale=problem.scale, backend="triton")


@contextmanager
def switched_on() -> Iterator[None]:
    """Inside, the triton backend takes the Hopper kernel where it can."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
