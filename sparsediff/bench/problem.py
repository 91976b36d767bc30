"""The tensors that the GPU table is measured on: normally distributed numbers, blocks by lot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.bench.plan import Shape
from sparsediff.kernels import BlockMask
from sparsediff.kernels.block_mask import block_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """``q``, ``k``, ``v`` ``[1, s, h, d]`` as diffusers lays them out, and what scales their scores."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v."""
        return self.q, self.k, self.v

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.q.shape[1]

    def heads_first(self) -> Problem:
        """The same numbers in memory as ``[1, h, s, d]``, seen as before."""
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in self.tensors)
        return Problem(q=q, k=k, v=v, scale=self.scale)

    def requiring_grad(self) -> Problem:
        """The same tensors as leaves of autograd."""
        q, k, v = (x.detach().requires_grad_() for x in self.tensors)
        return Problem(q=q, k=k, v=v, scale=self.scale)


def make_problem(shape: Shape, dtype: torch.dtype, device: str) -> Problem:
    """Random tensors of a shape; the same for every run on a machine."""
    generator = torch.Generator(device).manual_seed(0)
    size = (1, shape.tokens, shape.heads, shape.dim)
    q, k, v = (torch.randn(size, generator=generator, dtype=dtype, device=device) for _ in range(3))
    return Problem(q=q, k=k, v=v, scale=shape.dim**-0.5)


def random_mask(shape: Shape, block: tuple[int, int], kept: int, device: str) -> BlockMask:
    """`kept` key blocks by lot in every row and head: nothing that a cache could profit from."""
    m, n = (block_count(shape.tokens, tokens) for tokens in block)
    if kept == n:
        return BlockMask.full(
            block_size=block, q_len=shape.tokens, kv_len=shape.tokens, device=device
        )
    generator = torch.Generator(device).manual_seed(1)
    chosen = torch.empty(1, shape.heads, m, kept, dtype=torch.int32, device=device)
    for head in range(shape.heads):  # one head at a time: the lots of all are gigabytes
        lots = torch.rand(m, n, generator=generator, device=device)
        chosen[0, head] = lots.topk(kept, dim=-1).indices
    return BlockMask.from_indices(chosen, block_size=block, q_len=shape.tokens, kv_len=shape.tokens)
