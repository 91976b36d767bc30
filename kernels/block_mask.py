"""BlockMask: which key blocks each query block computes, per head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

if TYPE_CHECKING:
    from sparsediff.kernels.block_rules import BlockRules

T = TypeVar("T")


def block_count(length: int, block: int) -> int:
    """Number of blocks that cover `length` tokens; the last one may be partial."""
    return -(-length // block)


def block_shape(block_size: int | tuple[int, int]) -> tuple[int, int]:
    """Normalise a block size to (query tokens, key tokens); raises SparseError unless both are >= 1."""
    shape = block_size if isinstance(block_size, tuple) else (block_size, block_size)
    if len(shape) != 2 or any(
        isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape
    ):
        raise SparseError(
            f"block_size={block_size!r} is not a block size; give an int >= 1 or a pair "
            f"(query tokens, key tokens), for example 64 or (128, 64)."
        )
    return shape[0], shape[1]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockMask:
    """Block-sparse attention pattern: a list of key blocks for every query block.

    Shapes (b = batch or 1, h = heads or 1, m = query blocks, n = key blocks, x = longest list):

    * ``counts``  int32 ``[b, h, m]``: how many key blocks the row computes, 0..n.
    * ``indices`` int32 ``[b, h, m, x]``: their numbers, ascending; entries beyond the count repeat the
      last valid one (0 in an empty row), so that reading ahead is harmless.
    * ``block_size`` tokens per (query, key) block; the last block of either side may be partial.
    * ``q_len``, ``kv_len`` tokens covered.
    * ``implied_full``: a row whose count is n computes every key block and its list is not stored, so
      that a few dense rows (text) do not make every list n long. :meth:`complete` stores them.
    * ``rules``: the heads' patterns as rules, for kernels that compute blocks instead of reading lists.

    A dimension of size 1 in ``b`` or ``h`` is shared by all batch items or heads. Lists are the layout
    every backend reads (kernels.md A3); build them with :meth:`from_dense` or :meth:`from_indices`.

    Raises SparseError when shapes, dtypes or sizes do not fit together.
    """

    counts: Tensor
    indices: Tensor
    block_size: tuple[int, int]
    q_len: int
    kv_len: int
    implied_full: bool = False
    rules: BlockRules | None = None
    _forms: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_size", block_shape(self.block_size))
        if self.q_len < 1 or self.kv_len < 1:
            raise SparseError(
                f"BlockMask needs q_len and kv_len >= 1; found {self.q_len} and {self.kv_len}."
            )
        if self.counts.ndim != 3 or self.indices.shape[:3] != self.counts.shape:
            raise SparseError(
                f"BlockMask needs counts [b, h, m] and indices [b, h, m, x]; found "
                f"{tuple(self.counts.shape)} and {tuple(self.indices.shape)}."
            )
        if self.counts.dtype != torch.int32 or self.indices.dtype != torch.int32:
            raise SparseError(
                f"BlockMask lists are int32; found {self.counts.dtype} and {self.indices.dtype}. "
                f"Build masks with BlockMask.from_dense or BlockMask.from_indices."
            )
        if self.counts.shape[2] != self.q_blocks:
            raise SparseError(
                f"{self.q_len} query tokens in blocks of {self.block_size[0]} are {self.q_blocks} "
                f"rows; found {self.counts.shape[2]} rows of counts."
            )

    @property
    def q_blocks(self) -> int:
        """Number of query blocks (m)."""
        return block_count(self.q_len, self.block_size[0])

    @property
    def kv_blocks(self) -> int:
        """Number of key blocks (n)."""
        return block_count(self.kv_len, self.block_size[1])

    @property
    def device(self) -> torch.device:
        """Where the lists live."""
        return self.counts.device

    @property
    def density(self) -> float:
        """Share of (query block, key block) pairs computed, in [0, 1]. Synchronises a GPU."""
        return float(self.counts.sum().item()) / (self.counts.numel() * self.kv_blocks)

    @property
    def head_density(self) -> Tensor:
        """Share of block pairs computed by each batch item and head: float32 ``[b, h]``."""
        return self.counts.float().mean(dim=-1) / self.kv_blocks

    def check_range(self) -> None:
        """Raise SparseError unless counts fit the lists and indices are key blocks; syncs a GPU."""
        longest, blocks = self.indices.shape[3], self.kv_blocks
        counts = self.counts
        if self.implied_full:
            counts = counts.masked_fill(counts == blocks, 0)
        low, high = (int(x) for x in counts.aminmax())
        if low < 0 or high > longest:
            raise SparseError(
                f"BlockMask counts reach from {low} to {high}; its lists have {longest} entries. "
                f"Build masks with BlockMask.from_dense or BlockMask.from_indices."
            )
        if longest == 0:
            return
        low, high = (int(x) for x in self.indices.aminmax())
        if low < 0 or high >= blocks:
            raise SparseError(
                f"BlockMask indices reach from {low} to {high}; {self.kv_len} keys in blocks of "
                f"{self.block_size[1]} are numbers 0 to {blocks - 1}."
            )

    @classmethod
    def from_dense(
        cls,
        dense: Tensor,
        *,
        block_size: int | tuple[int, int],
        q_len: int,
        kv_len: int,
        implied_full: bool = False,
    ) -> BlockMask:
        """Build from a bool map ``[b, h, m, n]`` (b, h may be 1) of the block pairs to compute.

        With `implied_full` the lists of rows that compute everything are not stored. Raises SparseError
        when the map is not bool or its last two sizes do not match the lengths.
        """
        if not isinstance(dense, Tensor) or dense.dtype != torch.bool or dense.ndim != 4:
            found = (
                f"{dense.dtype} {tuple(dense.shape)}" if isinstance(dense, Tensor) else type(dense)
            )
            raise SparseError(
                f"BlockMask.from_dense needs a bool tensor [batch or 1, heads or 1, query blocks, "
                f"key blocks]; found {found}."
            )
        rows, cols = block_shape(block_size)
        expected = (block_count(q_len, rows), block_count(kv_len, cols))
        if tuple(dense.shape[2:]) != expected:
            raise SparseError(
                f"{q_len} x {kv_len} tokens in blocks of {rows} x {cols} are {expected[0]} x "
                f"{expected[1]} block pairs; found a map of {dense.shape[2]} x {dense.shape[3]}."
            )
        counts = dense.sum(dim=-1, dtype=torch.int32)
        # A stable descending sort of the bits puts the chosen columns first, in ascending order.
        order = dense.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
        listed = counts.masked_fill(counts == expected[1], 0) if implied_full else counts
        longest = max(1, int(listed.max().item()))
        return cls(
            counts=counts,
            indices=_repeat_last(order[..., :longest].to(torch.int32), counts),
            block_size=(rows, cols),
            q_len=q_len,
            kv_len=kv_len,
            implied_full=implied_full,
        )

    @classmethod
    def from_indices(
        cls, indices: Tensor, *, block_size: int | tuple[int, int], q_len: int, kv_len: int
    ) -> BlockMask:
        """Build from equally long lists of distinct key blocks, integer ``[b, h, m, x]``, any order.

        No host synchronisation: the caller guarantees 0 <= index < key blocks and no repetition.
        """
        counts = torch.full(
            indices.shape[:3], indices.shape[3], dtype=torch.int32, device=indices.device
        )
        ascending = indices.sort(dim=-1).values.to(torch.int32)
        return cls(
            counts=counts,
            indices=ascending,
            block_size=block_shape(block_size),
            q_len=q_len,
            kv_len=kv_len,
        )

    @classmethod
    def from_lists(
        cls,
        indices: Tensor,
        counts: Tensor,
        *,
        block_size: int | tuple[int, int],
        q_len: int,
        kv_len: int,
        implied_full: bool = False,
    ) -> BlockMask:
        """Build from lists of different lengths, without a host synchronisation.

        ``indices`` integer ``[b, h, m, x]``: distinct key blocks in any order, and numbers of key
        blocks or more for the entries that do not count; ``counts`` integer ``[b, h, m]``, each no
        more than the row's entries or, with `implied_full`, the number of all key blocks. The
        caller guarantees it.
        """
        counts = counts.to(torch.int32).contiguous()
        ascending = _repeat_last(indices.sort(dim=-1).values.to(torch.int32), counts)
        # A full row may hold entries that do not count; nobody reads them, but they stay in range.
        return cls(
            counts=counts,
            indices=ascending.clamp(max=block_count(kv_len, block_shape(block_size)[1]) - 1),
            block_size=block_shape(block_size),
            q_len=q_len,
            kv_len=kv_len,
            implied_full=implied_full,
        )

    @classmethod
    def full(
        cls,
        *,
        block_size: int | tuple[int, int],
        q_len: int,
        kv_len: int,
        device: torch.device | str = "cpu",
    ) -> BlockMask:
        """The mask that computes every block pair, shared by all batch items and heads."""
        rows, cols = block_shape(block_size)
        m, n = block_count(q_len, rows), block_count(kv_len, cols)
        return cls(
            counts=torch.full((1, 1, m), n, dtype=torch.int32, device=device),
            indices=torch.zeros((1, 1, m, 1), dtype=torch.int32, device=device),
            block_size=(rows, cols),
            q_len=q_len,
            kv_len=kv_len,
            implied_full=True,
        )

    def derived(self, key: str, build: Callable[[], T]) -> T:
        """A form of this mask, such as a backend's own lists, built at its first use and then kept."""
        if key not in self._forms:
            # A form outlives the call: made in inference mode, no later training could save it.
            with torch.inference_mode(False):
                self._forms[key] = build()
        return cast("T", self._forms[key])

    def with_rules(self, rules: BlockRules) -> BlockMask:
        """The same mask with the rules that its lists follow."""
        return replace(self, rules=rules)

    def complete(self) -> BlockMask:
        """The same mask with the list of every row stored."""
        if not self.implied_full:
            return self
        return self.derived("complete", self._complete)

    def _complete(self) -> BlockMask:
        position = torch.arange(self.kv_blocks, dtype=torch.int32, device=self.device)
        beyond = self.kv_blocks - self.indices.shape[-1]
        last = self.indices[..., -1:].expand(*self.counts.shape, beyond)
        listed = torch.cat([self.indices, last], dim=-1)
        full = (self.counts == self.kv_blocks)[..., None]
        return replace(self, indices=torch.where(full, position, listed), implied_full=False)

    def to_dense(self) -> Tensor:
        """The bool map ``[b, h, m, n]`` of the block pairs computed."""
        longest = self.indices.shape[-1]
        valid = torch.arange(longest, device=self.device) < self.counts[..., None]
        dense = torch.zeros(
            *self.counts.shape, self.kv_blocks, dtype=torch.uint8, device=self.device
        )
        dense.scatter_reduce_(
            -1, self.indices.long(), valid.to(torch.uint8), reduce="amax", include_self=True
        )
        if self.implied_full:
            return dense.bool() | (self.counts == self.kv_blocks)[..., None]
        return dense.bool()

    def to_csr(self) -> tuple[Tensor, Tensor]:
        """Compressed rows in (b, h, m) order: int64 ``row_start [b*h*m + 1]`` and int32 ``columns``."""
        lists = self.complete().indices
        flat = self.counts.reshape(-1).long()
        row_start = torch.zeros(flat.numel() + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(flat, dim=0, out=row_start[1:])
        valid = torch.arange(lists.shape[-1], device=self.device) < self.counts[..., None]
        return row_start, lists[valid]

    def to_flex(self, *, kv_lens: Tensor | None = None) -> Any:
        """The same pattern as a ``torch.nn.attention.flex_attention.BlockMask``.

        `kv_lens`, int ``[b]``, leaves out the keys at and beyond it. The ``mask_mod`` is exact too, so
        that FlexAttention's eager fallback computes the same result.
        """
        from torch.nn.attention.flex_attention import BlockMask as FlexBlockMask

        dense, lists = self.to_dense(), self.complete().indices
        rows, cols = self.block_size
        batches, heads = dense.shape[:2]

        def inside(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            return dense[b % batches, h % heads, q // rows, kv // cols]

        def inside_and_present(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            return inside(b, h, q, kv) & (kv < lens[b])

        lens = self.counts if kv_lens is None else kv_lens.to(self.device)

        padded = torch.zeros(*dense.shape, dtype=torch.int32, device=self.device)
        padded[..., : lists.shape[-1]] = lists
        return FlexBlockMask.from_kv_blocks(
            self.counts,
            padded,
            BLOCK_SIZE=self.block_size,
            mask_mod=inside if kv_lens is None else inside_and_present,
            seq_lengths=(self.q_len, self.kv_len),
        )

    def to(self, device: torch.device | str) -> BlockMask:
        """The same mask with its lists on `device`."""
        return replace(
            self,
            counts=self.counts.to(device),
            indices=self.indices.to(device),
            rules=None if self.rules is None else self.rules.to(device),
        )

    def __repr__(self) -> str:
        b, h, m = self.counts.shape
        return (
            f"BlockMask(batch={b}, heads={h}, blocks={m}x{self.kv_blocks}, "
            f"block_size={self.block_size}, density={self.density:.3f})"
        )


def _repeat_last(indices: Tensor, counts: Tensor) -> Tensor:
    """Replace the entries beyond each count by the last valid one (0 in an empty row)."""
    position = torch.arange(indices.shape[-1], device=indices.device)
    last = (counts[..., None] - 1).clamp(min=0, max=indices.shape[-1] - 1)
    padded = indices.gather(-1, torch.minimum(position.expand_as(indices), last).long())
    return torch.where(counts[..., None] > 0, padded, torch.zeros_like(padded))
