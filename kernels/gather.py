"""The gather backend: chosen key blocks are copied together and given to torch's own attention.

Rows of equally many keys are computed together, in chunks small enough that the copies stay in the
cache; a ragged or padded tail is the last block of its row and is cut off, so nothing is masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.kernels.dense import dense_kernel
from sparsediff.kernels.inputs import AttentionInputs, MassInputs

# Bytes of gathered keys and values per chunk: a cache's worth per CPU thread; on a GPU enough to
# fill it. Measured on a CPU (N 4096, D 64, density 0.2): 2 to 4 MB is best, 64 MB twice as slow.
CPU_CHUNK = 4 << 20
GPU_CHUNK = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOrder:
    """The rows of a call by their number of keys.

    ``ascending`` int64 ``[b * h * m]``: the rows in that order, ``back`` the way back; None where they
    are in that order already. ``runs``: the different numbers, ascending, and how many rows have each.
    """

    ascending: Tensor | None
    back: Tensor | None
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Tensor) -> RowOrder:
        """The order of rows with these numbers of keys, int64 ``[b * h * m]``; synchronises a GPU."""
        values, rows = torch.unique(lengths, return_counts=True)
        runs = tuple(zip(values.tolist(), rows.tolist(), strict=True))
        ascending = lengths.argsort(stable=True)
        if not bool((ascending.diff() != 1).any()):
            return cls(ascending=None, back=None, runs=runs)
        return cls(ascending=ascending, back=ascending.argsort(), runs=runs)


class GatherBackend:
    """Any device, autograd through torch's own kernels."""

    name = "gather"
    pools = False

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here."""
        return _dtype_reasons(inputs.q)

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""
        b, s, h, d = inputs.q.shape
        rows, columns = inputs.mask.block_size
        queries = _blocks(inputs.q, rows)
        keys, values = (_blocks(x, columns).flatten(1) for x in (inputs.k, inputs.v))
        lists, lengths = _row_lists(inputs)
        order = _row_order(inputs, lengths)
        if order.ascending is not None:
            queries, lists = queries[order.ascending], lists[order.ascending]
        room: dict[str, Tensor] = {}  # chunks reuse one piece of memory, which stays in the cache
        outs, lses, first = [], [], 0
        for length, rows_alike in order.runs:
            listed = -(-length // columns)
            step = _rows_per_chunk(inputs.q, listed * columns)
            for start in range(first, first + rows_alike, step):
                part = slice(start, min(start + step, first + rows_alike))
                chosen = lists[part, :listed].reshape(-1)
                k, v = (
                    _take(x, chosen, room if not inputs.needs_grad else None, name).view(
                        len(queries[part]), listed * columns, d
                    )
                    for name, x in (("k", keys), ("v", values))
                )
                out, lse = _attend(queries[part], k[:, :length], v[:, :length], inputs)
                outs.append(out)
                lses.append(lse)
            first += rows_alike
        out = _join(outs, order.back).view(b, h, -1, d)[:, :, :s].transpose(1, 2)
        if not inputs.return_lse:
            return out, None
        return out, _join([x for x in lses if x is not None], order.back).view(b, h, -1)[..., :s]

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Why the block mass cannot be computed here."""
        return _dtype_reasons(inputs.q)

    def mass(self, inputs: MassInputs) -> Tensor:
        """fp32 ``[b, h, m, n]``; one head at a time, in cache-sized chunks of query blocks."""
        b, s, h, _ = inputs.q.shape
        rows, _ = inputs.block_size
        # exp(score - inf) is 0: what a query without keys weighs, and what fills the last block.
        offset = inputs.lse.masked_fill(inputs.lse.isneginf(), torch.inf)
        offset = F.pad(offset, (0, -s % rows), value=torch.inf)
        q = F.pad(inputs.q, (0, 0, 0, 0, 0, -s % rows)).float() * inputs.scale
        k = inputs.k.float()
        lens = [k.shape[1]] * b if inputs.kv_lens is None else inputs.kv_lens.tolist()
        heads = [
            _head_mass(q[i, :, j], k[i, : lens[i], j], offset[i, j], inputs)
            for i in range(b)
            for j in range(h)
        ]
        return torch.stack(heads).view(b, h, *inputs.blocks)


def _head_mass(q: Tensor, k: Tensor, offset: Tensor, inputs: MassInputs) -> Tensor:
    """Block mass ``[m, n]`` of one head: q ``[m * rows, d]``, k ``[t, d]``, offset ``[m * rows]``."""
    (rows, columns), (_, key_blocks) = inputs.block_size, inputs.blocks
    step = rows * max(1, _chunk_bytes(inputs.q) // (4 * rows * max(1, len(k))))
    by_key = []
    for start in range(0, len(q), step):
        part, own = q[start : start + step], offset[start : start + step]
        weight = torch.addmm(-own[:, None], part, k.t()).exp_()
        by_key.append(weight.view(len(part) // rows, rows, len(k)).sum(dim=1))
    padded = F.pad(torch.cat(by_key), (0, key_blocks * columns - len(k)))
    return padded.view(len(padded), key_blocks, columns).sum(dim=2)


def _dtype_reasons(q: Tensor) -> list[str]:
    if q.dtype == torch.float64:
        return ["torch.float64 (needs float32, bfloat16 or float16)"]
    return []


def _chunk_bytes(q: Tensor) -> int:
    return CPU_CHUNK * torch.get_num_threads() if q.device.type == "cpu" else GPU_CHUNK


def _rows_per_chunk(q: Tensor, keys: int) -> int:
    """How many rows of so many gathered keys and values make a chunk, evenly shared by threads."""
    rows = _chunk_bytes(q) // max(1, 2 * keys * q.shape[3] * q.element_size())
    threads = torch.get_num_threads() if q.device.type == "cpu" else 1
    return max(1, rows // threads * threads)


def _blocks(x: Tensor, size: int) -> Tensor:
    """``[b, s, h, d]`` -> ``[b * h * blocks, size, d]``, zeros behind the last token."""
    b, s, h, d = x.shape
    heads_first = x.transpose(1, 2)
    # Padding by nothing would copy once more.
    padded = F.pad(heads_first, (0, 0, 0, -s % size)) if s % size else heads_first
    return padded.reshape(b * h * (padded.shape[2] // size), size, d)


def _take(x: Tensor, rows: Tensor, room: dict[str, Tensor] | None, name: str) -> Tensor:
    """The given rows of x, in the memory kept under `name`; in memory of their own without room."""
    if room is None:
        return x.index_select(0, rows)
    if name not in room or len(room[name]) < len(rows):
        room[name] = x.new_empty((len(rows), x.shape[1]))
    return torch.index_select(x, 0, rows, out=room[name][: len(rows)])


def _row_order(inputs: AttentionInputs, lengths: Tensor) -> RowOrder:
    """Kept with the mask, where no padding changes it: to find it waits for a GPU."""
    if inputs.kv_lens is not None:
        return RowOrder.of(lengths)
    b, _, h, _ = inputs.q.shape
    return inputs.mask.derived(f"gather {b}x{h}", lambda: RowOrder.of(lengths))


def _join(parts: list[Tensor], back: Tensor | None) -> Tensor:
    """The chunks one after the other, then in the order of the rows."""
    joined = torch.cat(parts)
    return joined if back is None else joined[back]


def _row_lists(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """For each of the b * h * m rows its blocks' positions in the flat keys, and its key count."""
    b, _, h, _ = inputs.q.shape
    mask, columns = inputs.mask, inputs.mask.block_size[1]
    counts = mask.counts.expand(b, h, -1).long()
    indices = mask.complete().indices.expand(b, h, -1, -1).long()
    lens = torch.full((b,), mask.kv_len, device=mask.device)
    if inputs.kv_lens is not None:
        lens = torch.minimum(lens, inputs.kv_lens)
    lens = lens[:, None, None]
    # Lists ascend: blocks without a key in use, and the one that holds only some, are at the end.
    position = torch.arange(indices.shape[3], device=mask.device)
    taken = (position < counts[..., None]) & (indices < -(-lens // columns)[..., None])
    listed = taken.sum(dim=-1)
    missing = (indices + 1) * columns - lens[..., None]
    lengths = listed * columns - (missing.clamp(min=0) * taken).sum(dim=-1)
    start = torch.arange(b * h, device=mask.device).view(b, h, 1, 1) * mask.kv_blocks
    return (indices + start).flatten(0, 2), lengths.flatten()


def _attend(
    q: Tensor, k: Tensor, v: Tensor, inputs: AttentionInputs
) -> tuple[Tensor, Tensor | None]:
    """Attention of gathered rows: q ``[r, s, d]``, k and v ``[r, t, d]``; t may be 0."""
    if k.shape[1] == 0:
        nothing = (q * 0).sum(dim=-1).float()
        return q * 0, nothing.masked_fill(torch.ones_like(nothing, dtype=torch.bool), -torch.inf)
    if not inputs.return_lse:
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=inputs.scale)
        return out[:, 0], None
    if not inputs.needs_grad:
        found = dense_kernel(q[:, :, None], k[:, :, None], v[:, :, None], inputs.scale, None)
        if found is not None:
            return found[0][:, :, 0], found[1][:, 0]
    # torch's fused kernels give no gradient of the LSE.
    scores = torch.bmm(q.float(), k.float().transpose(1, 2)) * inputs.scale
    lse = scores.logsumexp(dim=-1)
    return torch.bmm((scores - lse[..., None]).exp(), v.float()).to(q.dtype), lse
