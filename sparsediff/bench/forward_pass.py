"""Who competes forward: dense kernels, sparse ones at every density, block mass, AdaSpa's search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from sparsediff.bench import hopper_switch
from sparsediff.bench.accuracy import attention_error, mass_error, selection_error
from sparsediff.bench.contestant import Contestant
from sparsediff.bench.plan import Plan, Shape
from sparsediff.bench.problem import Problem, random_mask
from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention, dense_attention_lse
from sparsediff.kernels.backend import explain
from sparsediff.kernels.dense_kernels import DenseKernel, dense_attention, find_dense_kernel
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.registry import find_backend
from sparsediff.kernels.triton.row_lists import row_lists
from sparsediff.search import AdaSpa, TokenGrid

SEARCH_DENSITY = 0.2
BOTH_LAYOUTS = ("cudnn", "flash")  # the others read tokens first, or would compile once more


def dense_contestants(plan: Plan, shape: Shape, problem: Problem) -> Iterator[list[Contestant]]:
    """Every dense kernel that can run here, in each layout that might be its faster one."""
    for name in dict.fromkeys((*plan.baselines, *plan.dense)):
        kernel = find_dense_kernel(name)
        if kernel.reasons(*problem.tensors):
            continue
        first = _dense(kernel, shape, problem, name in plan.baselines)
        if name not in BOTH_LAYOUTS:
            yield [first]
            continue
        other = _dense(kernel, shape, problem.heads_first(), name in plan.baselines)
        yield [first, replace(other, layout="bhsd")]


def absent_kernels(plan: Plan, problem: Problem) -> dict[str, str]:
    """Why each kernel that does not compete cannot."""
    names = dict.fromkeys((*plan.baselines, *plan.dense))
    found = {name: find_dense_kernel(name).reasons(*problem.tensors) for name in names}
    if hopper_switch.NAME in plan.backends:
        found[f"{hopper_switch.NAME} at {problem.tokens} tokens"] = (
            hopper_switch.hopper_kernel_reasons(problem, plan.block_size)
        )
    return {name: "; ".join(reasons) for name, reasons in found.items() if reasons}


def sparse_contestants(plan: Plan, shape: Shape, problem: Problem) -> Iterator[Contestant]:
    """Every backend at every density; raises BackendError for one that cannot run these inputs."""
    for density in plan.densities:
        kept = plan.kept_blocks(density, shape.tokens)
        mask = random_mask(shape, plan.block_size, kept, plan.device)
        for name in plan.backends:
            run: Callable[[], Tensor] = partial(
                block_sparse_attention, *problem.tensors, mask, scale=problem.scale, backend=name
            )
            if name == hopper_switch.NAME:
                if hopper_switch.hopper_kernel_reasons(problem, plan.block_size):
                    continue
                run = hopper_switch.hopper_run(problem, mask)
            else:
                check_backend(name, problem, mask)
            yield Contestant(
                kernel=name,
                of="forward",
                density=mask.density,
                flop=shape.flop * mask.density,
                run=run,
                check=partial(attention_error, problem=problem, mask=mask),
                ours=True,
            )


def search_contestants(plan: Plan, shape: Shape, problem: Problem) -> Iterator[Contestant]:
    """The block mass of every backend that measures it, and AdaSpa's whole search with it."""
    block = (plan.block_size[1], plan.block_size[1])
    q, k, _ = problem.tensors
    lse = dense_attention_lse(*problem.tensors, scale=problem.scale)[1]
    inputs = MassInputs(q=q, k=k, lse=lse, block_size=block, scale=problem.scale)
    for name in hopper_switch.without(plan.backends):
        if find_backend(name).mass_reasons(inputs):
            continue
        mass = partial(block_mass, q, k, lse, block_size=block, scale=problem.scale, backend=name)
        yield Contestant(
            kernel=name,
            of="mass",
            density=1.0,
            flop=shape.flop / 2,
            run=mass,
            check=partial(mass_error, problem=problem, lse=lse, block=block),
            ours=True,
        )
        yield Contestant(
            kernel=name,
            of="search",
            density=SEARCH_DENSITY,
            flop=shape.flop / 2,
            run=partial(searched, problem, mass, block[1]),
            check=partial(check_search, mass, k),
            ours=True,
        )


def searched(problem: Problem, mass: Callable[[], Tensor], block: int) -> BlockMask:
    """AdaSpa's whole search with a known LSE: block mass, selection, index lists, work order."""
    method = AdaSpa(density=SEARCH_DENSITY, block_size=block)
    mask = method.mask(mass(), TokenGrid(frames=1, height=1, width=problem.tokens))
    k = problem.k
    head_bytes = 2 * k.shape[1] * k.shape[3] * k.element_size()
    row_lists(mask, batch=1, heads=k.shape[2], head_bytes=head_bytes, kv_lens=None)
    return mask


def check_search(mass: Callable[[], Tensor], k: Tensor, mask: BlockMask) -> float:
    """0 when the pattern keeps the heaviest blocks of the mass, which equals itself at every call."""
    return selection_error(mask, mass(), k)


def check_backend(name: str, problem: Problem, mask: BlockMask) -> None:
    """Raise BackendError, with the reasons, for a backend that cannot run these inputs."""
    q, k, v = problem.tensors
    backend = find_backend(name)
    reasons = backend.reasons(AttentionInputs(q=q, k=k, v=v, mask=mask, scale=problem.scale))
    if reasons:
        raise explain(backend, reasons)


def _dense(kernel: DenseKernel, shape: Shape, problem: Problem, baseline: bool) -> Contestant:
    return Contestant(
        kernel=kernel.name,
        of="forward",
        density=1.0,
        flop=shape.flop,
        run=lambda: dense_attention(kernel.name, *problem.tensors, scale=problem.scale),
        check=lambda out: attention_error(out, problem, None),
        baseline=baseline,
    )
