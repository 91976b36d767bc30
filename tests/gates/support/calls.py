"""One call of the triton backend with everything that is known about its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from attention_oracle import check_attention, exact_attention, token_mask
from exact_gradients import gradient_budgets
from poisoned_memory import laid_out, nan_in_new_tensors
from torch import Tensor

from sparsediff.kernels import BlockMask
from sparsediff.kernels.inputs import attention_inputs
from sparsediff.kernels.triton import TritonBackend

SCALE = 0.3


@dataclass(frozen=True, kw_only=True)
class Call:
    """Attention of ``mask`` on random numbers, surrounded by NaN in memory."""

    mask: BlockMask
    dim: int = 32
    batch: int = 1
    heads: int = 2
    dtype: torch.dtype = torch.float32
    kv_lens: tuple[int, ...] | None = None
    layouts: tuple[str, str, str] = ("slice", "slice", "slice")
    with_lse: bool = True
    seed: int = 0
    lens: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        lens = None if self.kv_lens is None else torch.tensor(self.kv_lens)
        object.__setattr__(self, "lens", lens)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v in the layouts asked for."""
        generator = torch.Generator().manual_seed(self.seed)
        lengths = (self.mask.q_len, self.mask.kv_len, self.mask.kv_len)
        made = [
            torch.randn(self.batch, n, self.heads, self.dim, generator=generator).to(self.dtype)
            for n in lengths
        ]
        q, k, v = (laid_out(x, layout) for x, layout in zip(made, self.layouts, strict=True))
        return q, k, v

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Output and LSE by the kernels, in new memory that holds NaN."""
        inputs = attention_inputs(
            q, k, v, self.mask, scale=SCALE, kv_lens=self.lens, return_lse=True
        )
        backend = TritonBackend()
        assert backend.reasons(inputs) == []
        with nan_in_new_tensors():
            out, lse = backend.attention(inputs)
        assert lse is not None
        return out, lse

    def check_forward(self, mask: BlockMask | None = None) -> None:
        """Raise AssertionError unless output and LSE, of `mask` if given, are within their budgets."""
        q, k, v = self.inputs()
        out, lse = (self if mask is None else replace(self, mask=mask)).run(q, k, v)
        assert out.dtype == q.dtype
        check_attention(out, lse, exact_attention(q, k, v, self.keep(), SCALE))

    def check(self) -> None:
        """The same for output, LSE and the gradients of both."""
        leaves = [x.detach().requires_grad_() for x in self.inputs()]
        out, lse = self.run(*leaves)
        generator = torch.Generator().manual_seed(self.seed + 1)
        grad_out = torch.randn(out.shape, generator=generator).to(out.dtype)
        grad_lse = torch.randn(lse.shape, generator=generator) if self.with_lse else None
        exact = exact_attention(*(x.detach() for x in leaves), self.keep(), SCALE)
        check_attention(out.detach(), lse.detach(), exact)
        with nan_in_new_tensors():
            if grad_lse is None:
                grads = torch.autograd.grad(out, leaves, laid_out(grad_out, "slice"))
            else:
                grads = torch.autograd.grad([out, lse], leaves, [grad_out, grad_lse])
        budgets = gradient_budgets(
            *leaves, exact, grad_out=grad_out, grad_lse=grad_lse, scale=SCALE
        )
        for (name, budget), found in zip(budgets.items(), grads, strict=True):
            budget.check(name, found)

    def keep(self) -> Tensor:
        """bool ``[b, h, s, t]``: which scores take part."""
        dense = self.mask.to_dense().expand(self.batch, self.heads, -1, -1)
        return token_mask(dense, self.mask.block_size, self.mask.q_len, self.mask.kv_len, self.lens)


def random_mask(
    q_len: int,
    kv_len: int,
    block: tuple[int, int],
    *,
    batch: int = 1,
    heads: int = 2,
    density: float = 0.6,
    seed: int = 0,
) -> BlockMask:
    """Blocks chosen independently, so that rows have different counts and some have none."""
    rows, columns = -(-q_len // block[0]), -(-kv_len // block[1])
    chosen = torch.rand(batch, heads, rows, columns, generator=torch.Generator().manual_seed(seed))
    return BlockMask.from_dense(chosen < density, block_size=block, q_len=q_len, kv_len=kv_len)
