"""One call of the triton backend on a device, and the same call in float64 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from attention_oracle import block_sums, check_attention, exact_attention, token_mask
from torch import Tensor

from sparsediff.bench.accuracy import BACKWARD, allowance, relative_error
from sparsediff.bench.contestant import poisoned
from sparsediff.bench.problem import Problem
from sparsediff.kernels import BlockMask, block_mass, block_sparse_attention

SCALE = 0.3
LAYOUTS = ("slice", "heads first", "fused", "shared batch", "shared heads")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The numbers of x ``[b, s, h, d]`` as a view with NaN around it, in one of LAYOUTS."""
    if layout == "shared batch":
        return laid_out(x[:1], "slice").expand(x.shape)
    if layout == "shared heads":
        return laid_out(x[:, :, :1], "slice").expand(x.shape)
    if layout == "heads first":
        return laid_out(x.transpose(1, 2), "slice").transpose(1, 2)
    if layout == "fused":
        b, s, h, d = x.shape
        whole = x.new_full((b, s + 2, 3 * h * d), torch.nan)
        view = whole[:, 1:-1, h * d : 2 * h * d].unflatten(-1, (h, d))
    else:
        whole = x.new_full((*(n + 2 for n in x.shape[:-1]), x.shape[-1] + 8), torch.nan)
        view = whole[1:-1, 1:-1, 1:-1, : x.shape[-1]]
    view.copy_(x)
    return view


@dataclass(frozen=True, kw_only=True)
class GpuCall:
    """Block-sparse attention of ``q_len`` x ``kv_len`` tokens; the lists are drawn with ``density``.

    The first row of blocks is full and the last of the first head empty, so that all kinds of rows are
    there. ``shared`` draws one pattern for all heads and batch items.
    """

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    batch: int = 2
    heads: int = 3
    dim: int = 64
    q_len: int = 333
    kv_len: int = 333
    block: tuple[int, int] = (128, 64)
    density: float = 0.4
    kv_lens: tuple[int, ...] | None = None
    layout: str = "slice"
    shared: bool = False

    def chosen(self) -> Tensor:
        """bool ``[b or 1, h or 1, m, n]`` on the CPU: the block pairs."""
        generator = torch.Generator().manual_seed(3)
        rows, columns = -(-self.q_len // self.block[0]), -(-self.kv_len // self.block[1])
        batch, heads = (1, 1) if self.shared else (self.batch, self.heads)
        chosen = torch.rand(batch, heads, rows, columns, generator=generator) < self.density
        chosen[:, :, 0] = True
        chosen[0, 0, -1] = rows == 1
        return chosen

    def mask(self) -> BlockMask:
        """The mask on the device."""
        return BlockMask.from_dense(
            self.chosen(), block_size=self.block, q_len=self.q_len, kv_len=self.kv_len
        ).to(self.device)

    def lens(self) -> Tensor | None:
        """``kv_lens`` on the device."""
        return None if self.kv_lens is None else torch.tensor(self.kv_lens, device=self.device)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v on the device, each in the middle of NaN."""
        generator = torch.Generator().manual_seed(0)
        made = (
            torch.randn(self.batch, n, self.heads, self.dim, generator=generator)
            for n in (self.q_len, self.kv_len, self.kv_len)
        )
        q, k, v = (laid_out(x.to(self.dtype).to(self.device), self.layout) for x in made)
        return q, k, v

    def run(self, *tensors: Tensor, mask: BlockMask | None = None) -> tuple[Tensor, Tensor]:
        """Output and LSE of the triton backend, into memory that holds NaN."""
        q, k, v = tensors or self.tensors()
        with poisoned():
            assert bool(torch.empty(3, device=self.device).isnan().all())
            return block_sparse_attention(
                q,
                k,
                v,
                mask or self.mask(),
                scale=SCALE,
                return_lse=True,
                kv_lens=self.lens(),
                backend="triton",
            )

    def keep(self) -> Tensor:
        """bool ``[b, h, s, t]`` on the CPU: which scores take part."""
        chosen = self.chosen().expand(self.batch, self.heads, -1, -1)
        lens = None if self.kv_lens is None else torch.tensor(self.kv_lens)
        return token_mask(chosen, self.block, self.q_len, self.kv_len, lens)

    def check_forward(self) -> None:
        """Raise AssertionError unless output and LSE are within their budgets."""
        q, k, v = self.tensors()
        out, lse = self.run(q, k, v)
        assert out.dtype == self.dtype
        exact = exact_attention(q.cpu(), k.cpu(), v.cpu(), self.keep(), SCALE)
        check_attention(out.cpu(), lse.cpu(), exact)

    def check_mass(self) -> None:
        """The same for the block mass under the exact LSE of all keys."""
        q, k, v = self.tensors()
        everything = torch.ones(self.batch, self.heads, 1, 1, dtype=torch.bool)
        lens = None if self.kv_lens is None else torch.tensor(self.kv_lens)
        size = (self.q_len, self.kv_len)
        keep = token_mask(everything, size, self.q_len, self.kv_len, lens)
        exact = exact_attention(q.cpu(), k.cpu(), v.cpu(), keep, SCALE)
        lse = exact.lse.float().to(self.device)
        with poisoned():
            mass = block_mass(
                q,
                k,
                lse,
                block_size=self.block,
                scale=SCALE,
                kv_lens=self.lens(),
                backend="triton",
            )
        right = block_sums(exact.weights, self.block)
        error = (mass.cpu().double() - right).abs()
        assert bool((error <= right * exact.weight_error + 1e-6).all()), float(error.max())

    def check_backward(self) -> None:
        """The same for the gradients of q, k and v by a loss of output and LSE."""
        q, k, v = self.tensors()
        leaves = tuple(x.detach().requires_grad_() for x in (q, k, v))
        generator = torch.Generator().manual_seed(4)
        grad_out = torch.randn(q.shape, generator=generator).to(self.dtype)
        grad_lse = torch.randn(self.batch, self.heads, self.q_len, generator=generator)
        found = self.gradients(leaves, grad_out, grad_lse)
        exact, largest = exact_gradients(leaves, self.keep(), grad_out, grad_lse)
        allowed = allowance(
            Problem(q=q, k=k, v=v, scale=SCALE),
            roundings=BACKWARD,
            keys=max(self.q_len, self.kv_len),
            largest=largest,
        )
        for name, grad, right in zip("qkv", found, exact, strict=True):
            assert bool(grad.isfinite().all()), f"gradient of {name}"
            error = relative_error(grad.cpu(), right) / allowed
            assert error <= 1, f"gradient of {name}: {error} allowances"

    def gradients(
        self, leaves: tuple[Tensor, ...], grad_out: Tensor, grad_lse: Tensor
    ) -> tuple[Tensor, ...]:
        """dq, dk and dv of the triton backend, into memory that holds NaN."""
        out, lse = self.run(*leaves)
        kept = ~lse.isneginf()  # an empty row has no LSE that could change
        given = (grad_lse.to(self.device) * kept).contiguous()
        with poisoned():
            return torch.autograd.grad([out, lse], leaves, [grad_out.to(self.device), given])


def exact_gradients(
    leaves: tuple[Tensor, ...], keep: Tensor, grad_out: Tensor, grad_lse: Tensor
) -> tuple[tuple[Tensor, ...], float]:
    """dq, dk, dv in float64 by autograd of the formula, and the largest sum of |q||k| scale + |LSE|."""
    q, k, v = (x.detach().cpu().double().requires_grad_() for x in leaves)
    qh, kh, vh = (x.transpose(1, 2) for x in (q, k, v))
    scores = (qh @ kh.mT * SCALE).masked_fill(~keep, float("-inf"))
    some = keep.any(dim=-1)
    lse = scores.masked_fill(~some[..., None], 0.0).logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp()
    out = (weights @ vh).transpose(1, 2)
    given = grad_lse.double() * some
    grads = torch.autograd.grad([out, lse], (q, k, v), [grad_out.double(), given])
    largest = float(((qh.abs() @ kh.abs().mT * SCALE).max() + lse.abs().max()).detach())
    return grads, largest
