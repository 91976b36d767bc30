"""Tensors whose rows lie gigabytes apart in memory nobody touches: offsets beyond 2^31 elements."""

from __future__ import annotations

import mmap

import torch
from attention_oracle import check_attention, exact_attention
from torch import Tensor

from sparsediff.kernels import BlockMask
from sparsediff.kernels.triton import launches
from sparsediff.kernels.triton.row_lists import row_lists

# Half precision keeps the bytes down; 12 GiB of address space, of which a few pages are used. The base
# lies in the middle: an offset that wrapped around would reach zeros before it, and no foreign memory.
MAP_NORESERVE = 0x4000  # Linux; in Python's mmap from 3.13 on
ELEMENTS = 6 << 30
BASE = 2 << 30
SHAPE = (2, 32, 2, 16)  # batch, tokens, heads, dim
FAR = (1 << 31) + (1 << 20)
# One stride each that carries its index beyond 2^31: batch; tokens 16 to 31; head.
STRIDES = {
    "batch": (FAR, 64, 32, 1),
    "tokens": (1024, FAR // 16, 32, 1),
    "heads": (1024, 32, FAR, 1),
}
BLOCK = (16, 16)
SCALE = 0.3


def address_space() -> Tensor | None:
    """Address space without memory behind it until it is written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        pages = mmap.mmap(-1, ELEMENTS * 2, flags=flags)
    except (OSError, OverflowError):
        return None
    return torch.frombuffer(pages, dtype=torch.float16)


def spread(memory: Tensor, x: Tensor, which: str) -> Tensor:
    """x in `memory` with the strides of `which`, each number beyond 2^31 elements of the first."""
    view = memory.as_strided(x.shape, STRIDES[which], BASE)
    view.copy_(x)
    return view


def numbers(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).half()


def mask_of_all() -> BlockMask:
    return BlockMask.full(block_size=BLOCK, q_len=SHAPE[1], kv_len=SHAPE[1])


def check_forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """Run the forward kernel into `out`, check it, and return the LSE."""
    mask = mask_of_all()
    lse = torch.full((SHAPE[0], SHAPE[2], SHAPE[1]), torch.nan)
    lists = row_lists(mask, batch=SHAPE[0], heads=SHAPE[2], head_bytes=1, kv_lens=None)
    launches.forward(
        q, k, v, out, lse, counts=lists.counts, indices=lists.indices, order=lists.order,
        kv_lens=None, rules=None, lead=0, trail=0, block_size=BLOCK, scale=SCALE, arch=90,
    ).run()  # fmt: skip
    keep = torch.ones(SHAPE[0], SHAPE[2], SHAPE[1], SHAPE[1], dtype=torch.bool)
    check_attention(out, lse, exact_attention(q, k, v, keep, SCALE))
    return lse
