"""All tokens of some heads for some tokens of all heads, and back, among the processes of a group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.search.head_share import HeadShare


class _Swap(torch.autograd.Function):
    """Part i of process j for part j of process i: its own inverse, and its own gradient."""

    @staticmethod
    def forward(context: Any, parts: Tensor, group: Any) -> Tensor:
        context.group = group
        return _swapped(parts, group)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _swapped(gradients[0], context.group), None


def _swapped(parts: Tensor, group: Any) -> Tensor:
    parts = parts.contiguous()
    out = torch.empty_like(parts)
    dist.all_to_all_single(out, parts, group=group)
    return out


def collected(values: Tensor, group: Any) -> Tensor:
    """What every process of a group brings, ``[...]`` each: ``[processes, ...]``."""
    ranks = dist.get_world_size(group)
    out = values.new_empty((ranks * values.numel(),))
    dist.all_gather_into_tensor(out, values.detach().reshape(-1), group=group)
    return out.view(ranks, *values.shape)


def to_heads(x: Tensor, share: HeadShare, group: Any) -> Tensor:
    """From ``[b, s, heads, d]``, this process's tokens, to ``[b, processes x s, h, d]``, its heads.

    The tokens are in the order of the processes.
    """
    if not _in_order(share.shares):
        x = x.index_select(2, share.order)
    parts = x.unflatten(2, (len(share.shares), -1)).permute(2, 0, 1, 3, 4)
    return _exchange(parts, group).transpose(0, 1).flatten(1, 2)


def to_tokens(x: Tensor, share: HeadShare, group: Any) -> Tensor:
    """The way back of `to_heads`: heads in the model's order."""
    parts = x.unflatten(1, (len(share.shares), -1)).transpose(0, 1)
    out = _exchange(parts, group).permute(1, 2, 0, 3, 4).flatten(2, 3)
    return out if _in_order(share.shares) else out.index_select(2, share.back)


def _exchange(parts: Tensor, group: Any) -> Tensor:
    out: Tensor = _Swap.apply(parts, group)  # type: ignore[no-untyped-call]
    return out


@lru_cache(maxsize=256)
def _in_order(shares: tuple[tuple[int, ...], ...]) -> bool:
    numbers = [head for share in shares for head in share]
    return numbers == sorted(numbers)


@lru_cache(maxsize=16)
def model_order(
    streams: Sequence[int], ranks: int, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """How tokens that arrive process by process come into the model's order, and back: int64 ``[s]``.

    The model cuts each of its `streams` of tokens (text, video) into equal parts, so that the processes
    hold ``[text_0, video_0], [text_1, video_1], ...``. None when they are in order as they arrive.
    Raises SparseError for streams that cannot be cut evenly.
    """
    if len(streams) == 1:
        return None
    if any(tokens % ranks for tokens in streams):
        raise SparseError(
            f"{' and '.join(map(str, streams))} tokens cannot be divided evenly among {ranks} "
            f"processes; each of these numbers has to be a multiple of {ranks}."
        )
    sizes = [tokens // ranks for tokens in streams]
    arrived = torch.arange(sum(streams), device=device).view(ranks, -1)
    order = torch.cat([part.reshape(-1) for part in arrived.split(sizes, dim=1)])
    return order, order.argsort()
