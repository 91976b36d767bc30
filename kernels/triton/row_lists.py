"""RowLists and TransposedLists: a BlockMask in the form the kernels read, built once per mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask

# Bytes of keys and values that stay in the L2 of a data-centre GPU; heads beyond that wait their turn.
L2_BYTES = 40 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLists:
    """What a forward program reads of its row.

    ``counts`` int32 ``[b or 1, h or 1, m]``: positive for a listed row, negative for a row of every
    block up to there; ``indices`` int32 ``[b or 1, h or 1, m, x]``; ``order`` int32 ``[b * h * m]``:
    the rows of all heads in the order in which programs take them.
    """

    counts: Tensor
    indices: Tensor
    order: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TransposedLists:
    """The query blocks that compute each key block, ascending.

    ``counts`` int32 and ``starts`` int64 ``[b or 1, h or 1, n]`` into ``rows`` int32, flat.
    """

    counts: Tensor
    starts: Tensor
    rows: Tensor


def row_lists(
    mask: BlockMask, *, batch: int, heads: int, head_bytes: int, kv_lens: Tensor | None
) -> RowLists:
    """The lists of a mask for `batch` x `heads`; `head_bytes` of keys and values per head.

    With ``kv_lens`` ``[b]`` the counts leave out the blocks that are padding altogether. No host
    synchronisation.
    """
    order = mask.derived(
        f"triton order {batch} {heads} {head_bytes}",
        lambda: work_order(mask.counts, batch=batch, heads=heads, head_bytes=head_bytes),
    )
    if kv_lens is None:
        counts = mask.derived("triton counts", lambda: signed_counts(mask, None))
    else:
        counts = signed_counts(mask, kv_lens)
    return RowLists(counts=counts, indices=stored_lists(mask), order=order)


def stored_lists(mask: BlockMask) -> Tensor:
    """The mask's lists, each in one piece: a transposed tensor of them is copied once."""
    if mask.indices.stride(3) == 1 or mask.indices.shape[3] <= 1:
        return mask.indices
    return mask.derived("triton indices", mask.indices.contiguous)


def signed_counts(mask: BlockMask, kv_lens: Tensor | None) -> Tensor:
    """Counts, negative for full rows, without the blocks at and beyond each length ``[b]``."""
    full = mask.counts == mask.kv_blocks
    if kv_lens is None:
        return torch.where(full, -mask.counts, mask.counts).contiguous()
    present = (kv_lens + mask.block_size[1] - 1) // mask.block_size[1]
    present = present.to(torch.int32)[:, None, None]
    # Lists ascend, so the blocks that are present come first.
    batch = kv_lens.shape[0]
    lists = mask.indices.expand(batch, -1, -1, -1).contiguous()
    limit = present[..., None].expand(*lists.shape[:3], 1).contiguous()
    listed = torch.searchsorted(lists, limit)[..., 0].to(torch.int32)
    return torch.where(full, -present, torch.minimum(mask.counts, listed)).contiguous()


def work_order(counts: Tensor, *, batch: int, heads: int, head_bytes: int) -> Tensor:
    """Rows of all heads, longest first among heads whose keys and values fit the L2 together.

    Programs start in this order, so long rows do not come last and a group's keys stay in the cache
    (longest processing time first, as FlashAttention-4's scheduler).
    """
    together = max(1, L2_BYTES // max(1, head_bytes))
    length = counts.expand(batch, heads, -1).reshape(batch * heads, -1).long()
    group = torch.arange(batch * heads, device=counts.device) // together
    key = group[:, None] * (1 << 32) - length
    return key.flatten().argsort(stable=True).to(torch.int32)


def transposed_lists(mask: BlockMask) -> TransposedLists:
    """For every key block the query blocks that compute it, by a stable sort: always the same."""
    mask = mask.complete()
    batches, heads, rows = mask.counts.shape
    longest, blocks = mask.indices.shape[3], mask.kv_blocks
    pairs = batches * heads
    valid = torch.arange(longest, device=mask.device) < mask.counts[..., None]
    pair = torch.arange(pairs, device=mask.device).view(batches, heads, 1, 1)
    key = torch.where(valid, pair * blocks + mask.indices, pairs * blocks).flatten()
    order = key.argsort(stable=True)
    counts_before = torch.searchsorted(
        # Adding ones would make all entries that do not count wait for one address of a GPU.
        key[order],
        torch.arange(pairs * blocks + 1, device=mask.device),
    )
    return TransposedLists(
        counts=counts_before.diff().to(torch.int32).view(batches, heads, blocks),
        starts=counts_before[:-1].view(batches, heads, blocks),
        rows=(order // longest % rows).to(torch.int32) if longest else order.to(torch.int32),
    )
