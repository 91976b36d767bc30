"""Attention on a materialised token mask in float64, and how far a kernel may be from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.cpu.build import find_compiler

# What each backend computes with; the C++ kernels need a compiler.
PATH = {
    "reference": "reference",
    "gather": "gather",
    "cpu": "native" if find_compiler() else "gather",
}
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
F32 = UNIT[torch.float32]


def token_mask(
    dense: Tensor, block: tuple[int, int], q_len: int, kv_len: int, kv_lens: Tensor | None = None
) -> Tensor:
    """bool ``[b, h, s, t]``: which scores take part."""
    keep = dense.repeat_interleave(block[0], dim=2).repeat_interleave(block[1], dim=3)
    keep = keep[:, :, :q_len, :kv_len]
    if kv_lens is None:
        return keep
    return keep & (torch.arange(kv_len) < kv_lens[:, None])[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Float64 results for the inputs as they are rounded, and the error a kernel may make."""

    out: Tensor
    lse: Tensor
    weights: Tensor
    out_error: Tensor
    lse_error: float
    weight_error: float


def exact_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float) -> Exact:
    """``[b, s, h, d]`` inputs; weights ``[b, h, s, t]``.

    Budget: a score sums d rounded products; exp passes its absolute error on as a relative one; the
    sums over t keys add theirs; 16-bit kernels also round each weight once and the output once.
    """
    unit = UNIT[q.dtype]
    qh, kh, vh = (x.transpose(1, 2).double() for x in (q, k, v))
    scores = (qh @ kh.mT) * scale
    kept = scores.masked_fill(~keep, float("-inf"))
    lse = kept.logsumexp(dim=-1)
    weights = (kept - lse[..., None]).exp().nan_to_num(0.0)
    out = weights @ vh
    largest = float(((qh.abs() @ kh.abs().mT) * scale).max()) + 1
    dims, keys = q.shape[3], k.shape[1]
    relative = 2 * (dims + 4) * F32 * largest + (keys + 8) * F32 + 4e-7
    rounding = 0.0 if q.dtype == torch.float32 else unit
    spread = weights @ vh.abs()
    error = spread * (relative + rounding) + out.abs() * (2 * rounding + F32) + 1e-7
    return Exact(
        out=out.transpose(1, 2),
        lse=lse,
        weights=weights,
        out_error=error.transpose(1, 2),
        # torch's own 16-bit kernels, which the gather path uses, take a coarse exp.
        lse_error=relative + (0.0 if q.dtype == torch.float32 else 1e-4),
        weight_error=relative,
    )


def block_sums(weights: Tensor, block: tuple[int, int]) -> Tensor:
    """``[b, h, s, t]`` -> ``[b, h, m, n]``: sums over block pairs."""
    rows, columns = block
    b, h, s, t = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -t % columns, 0, -s % rows))
    return padded.view(b, h, -1, rows, padded.shape[3] // columns, columns).sum(dim=(3, 5))


def check_attention(out: Tensor, lse: Tensor | None, exact: Exact) -> None:
    """Raise AssertionError unless every number is within its budget (NaN never is)."""
    error = (out.double() - exact.out).abs()
    assert bool((error <= exact.out_error).all()), (
        f"{float((error / exact.out_error).max())} budgets"
    )
    if lse is None:
        return
    assert lse.dtype == torch.float32
    empty = exact.lse.isneginf()
    assert torch.equal(lse.isneginf(), empty)
    assert not lse.isnan().any()
    lse_error = (lse.double() - exact.lse)[~empty].abs()
    assert bool((lse_error <= exact.lse_error).all()), f"{float(lse_error.max())}"
