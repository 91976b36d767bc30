"""Gradients of block-sparse attention in float64, and how far a kernel may be from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from attention_oracle import F32, UNIT, Exact
from torch import Tensor

# Below this a float16 has no more relative precision: half its smallest step.
SUBNORMAL = {torch.float16: 2.0**-25}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Float64 gradient ``[b, n, h, d]`` and the error allowed in each of its numbers."""

    value: Tensor
    error: Tensor

    def check(self, name: str, found: Tensor) -> None:
        """Raise AssertionError unless every number is within its budget (NaN never is)."""
        error = (found.double() - self.value).abs()
        assert bool((error <= self.error).all()), (
            f"{name}: {float((error / self.error).max())} budgets"
        )


def gradient_budgets(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    exact: Exact,
    *,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    scale: float,
) -> dict[str, Budget]:
    """Budgets of dq, dk, dv for ``[b, s, h, d]`` inputs; ``grad_lse`` ``[b, h, s]``.

    With p the weights, ds = p (do v^T - delta). Errors of the score and of the LSE are relative ones of
    p, so twice the forward pass's; do v^T sums d products, and so does delta, with an output that has
    the error of the forward pass. p and ds are rounded to the inputs' dtype before they are multiplied,
    sums over n tokens lose n units of float32, and the result is rounded once.
    """
    dims, dtype = q.shape[3], q.dtype
    rounding = 0.0 if dtype == torch.float32 else UNIT[dtype]
    tiny = SUBNORMAL.get(dtype, 0.0)
    qh, kh, vh, g, out, out_error = (
        x.detach().transpose(1, 2).double() for x in (q, k, v, grad_out, exact.out, exact.out_error)
    )
    p, relative = exact.weights, 2 * exact.lse_error
    product = g @ vh.mT
    delta = (g * out).sum(-1, keepdim=True)
    delta_error = (g.abs() * (out_error + (dims + 4) * F32 * out.abs())).sum(-1, keepdim=True)
    if grad_lse is not None:
        delta = delta - grad_lse.double()[..., None]
        delta_error = delta_error + 2 * F32 * grad_lse.double().abs()[..., None]
    ds = p * (product - delta)
    ds_error = p * (
        relative * (product - delta).abs()
        + (dims + 4) * F32 * (g.abs() @ vh.abs().mT)
        + delta_error
    )
    ds_error = ds_error + (rounding + 2 * F32) * (ds.abs() + ds_error) + tiny

    def summed(value: Tensor, error: Tensor, other: Tensor, factor: float) -> Budget:
        result = (value @ other) * factor
        sums = (value.shape[-1] + 8) * F32 * (value.abs() @ other.abs())
        bound = (error @ other.abs() + sums) * factor
        bound = bound + (rounding + F32) * (result.abs() + bound) + tiny + 1e-30
        return Budget(value=result.transpose(1, 2), error=bound.transpose(1, 2))

    p_error = (relative + rounding) * p + torch.where(p > 0, tiny, 0.0)
    return {
        "dq": summed(ds, ds_error, kh, scale),
        "dk": summed(ds.mT, ds_error.mT, qh, scale),
        "dv": summed(p.mT, p_error.mT, g, 1.0),
    }
