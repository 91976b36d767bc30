"""The Triton kernels as torch operators: seen by torch.compile and autograd, opaque to both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.triton import backward_launches, launches
from sparsediff.kernels.triton.hopper_launch import hopper_forward, hopper_reasons, switched_on
from sparsediff.kernels.triton.launch_arguments import compute_capability


@torch.library.custom_op("sparsediff::block_sparse_attention", mutates_args=())
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    indices: Tensor,
    order: Tensor | None,
    kv_lens: Tensor | None,
    rules: Tensor | None,
    lead: int,
    trail: int,
    grad_counts: Tensor | None,
    grad_starts: Tensor | None,
    grad_rows: Tensor | None,
    q_block: int,
    kv_block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output like q and natural-log LSE float32 ``[b, h, s]``; lists as in `RowLists`.

    The ``grad_`` lists are those of `TransposedLists`, which the backward pass needs.
    """
    out, lse = _outputs(q)
    size = q_block, kv_block
    arch = compute_capability(q.device)
    plain = kv_lens is None and rules is None and switched_on()
    if plain and order is not None and not hopper_reasons(q, k, v, block_size=size, arch=arch):
        launch = hopper_forward(
            q, k, v, out, lse,
            counts=counts, indices=indices, order=order, block_size=size, scale=scale,
        )  # fmt: skip
    else:
        launch = launches.forward(
            q, k, v, out, lse,
            counts=counts, indices=indices, order=order, kv_lens=kv_lens, rules=rules,
            lead=lead, trail=trail, block_size=size, scale=scale, arch=arch,
        )  # fmt: skip
    launch.run()
    return out, lse


@block_sparse_attention.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(q)


@torch.library.custom_op("sparsediff::block_sparse_attention_backward", mutates_args=())
def block_sparse_attention_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    counts: Tensor,
    indices: Tensor,
    order: Tensor | None,
    kv_lens: Tensor | None,
    grad_counts: Tensor,
    grad_starts: Tensor,
    grad_rows: Tensor,
    q_block: int,
    kv_block: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; two launches after the one that prepares the rows' sums."""
    grad_q, grad_k, grad_v = (_like(x) for x in (q, k, v))
    row_delta = torch.empty_like(lse)
    arch = compute_capability(q.device)
    backward_launches.delta(out, grad_out, grad_lse, row_delta).run()
    backward_launches.grad_q(
        q, k, v, grad_out, lse, row_delta, grad_q,
        counts=counts, indices=indices, order=order, kv_lens=kv_lens,
        block_size=(q_block, kv_block), scale=scale, arch=arch,
    ).run()  # fmt: skip
    backward_launches.grad_kv(
        q, k, v, grad_out, lse, row_delta, grad_k, grad_v,
        counts=grad_counts, starts=grad_starts, rows=grad_rows, kv_lens=kv_lens,
        block_size=(q_block, kv_block), scale=scale, arch=arch,
    ).run()  # fmt: skip
    return grad_q, grad_k, grad_v


@block_sparse_attention_backward.register_fake
def _(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q), _like(k), _like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, counts, indices, order, kv_lens = inputs[:7]
    *transposed, q_block, kv_block, scale = inputs[10:]
    ctx.save_for_backward(q, k, v, *output, counts, indices, order, kv_lens, *transposed)
    ctx.call = q_block, kv_block, scale
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, out, lse, counts, indices, order, kv_lens, *transposed = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    elif grad_out.stride(-1) != 1 or grad_out.shape != out.shape:
        grad_out = grad_out.contiguous()
    if grad_lse is not None:
        grad_lse = grad_lse.contiguous()
    grads = block_sparse_attention_backward(
        grad_out,
        grad_lse,
        q,
        k,
        v,
        out,
        lse,
        counts,
        indices,
        order,
        kv_lens,
        *transposed,
        *ctx.call,
    )
    return *grads, *(None,) * 13


block_sparse_attention.register_autograd(_gradients, setup_context=_save)


@torch.library.custom_op("sparsediff::add_pooled_blocks", mutates_args=())
def add_pooled_blocks(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    log_count: Tensor,
    chosen: Tensor,
    part: Tensor,
    part_lse: Tensor,
    q_block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output and LSE of a sparse call, `part`, with each block that is not `chosen` as one key."""
    out, lse = _outputs(q)
    arch = compute_capability(q.device)
    launches.pooled(
        q, keys, values, log_count, chosen, part, part_lse, out, lse,
        q_block=q_block, scale=scale, arch=arch,
    ).run()  # fmt: skip
    return out, lse


@add_pooled_blocks.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(q)


@torch.library.custom_op("sparsediff::block_mass", mutates_args=())
def block_mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    kv_lens: Tensor | None,
    q_block: int,
    kv_block: int,
    scale: float,
) -> Tensor:
    """Mass of every block pair, float32 ``[b, h, m, n]``."""
    block_size = (q_block, kv_block)
    arch = compute_capability(q.device)
    part = launches.mass_part(launches.mass_tile(q, block_size, arch), q_block)
    parts = q_block // part
    shape = _mass_shape(q, k, q_block, kv_block)
    # Blocks that are padding altogether are not visited.
    make = torch.empty if kv_lens is None else torch.zeros
    out = make((*shape[:2], shape[2] * parts, shape[3]), dtype=torch.float32, device=q.device)
    launches.mass(
        q, k, lse, out, kv_lens=kv_lens, block_size=block_size, scale=scale, arch=arch
    ).run()
    return out if parts == 1 else out.unflatten(2, (shape[2], parts)).sum(dim=3)


@block_mass.register_fake
def _(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    kv_lens: Tensor | None,
    q_block: int,
    kv_block: int,
    scale: float,
) -> Tensor:
    return q.new_empty(_mass_shape(q, k, q_block, kv_block), dtype=torch.float32)


def _mass_shape(q: Tensor, k: Tensor, q_block: int, kv_block: int) -> tuple[int, int, int, int]:
    rows, columns = block_count(q.shape[1], q_block), block_count(k.shape[1], kv_block)
    return q.shape[0], q.shape[2], rows, columns


def _outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    return _like(q), lse


def _like(x: Tensor) -> Tensor:
    """A contiguous ``[b, s, h, d]`` tensor: inputs may be slices of something far larger."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
