"""One small attention problem that backends are checked and timed on, to rank them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.backend import Backend
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.ranked_call import RankedCall
from sparsediff.kernels.reference import ReferenceBackend

# (tokens, heads) per device type: a quick trial interrupts a user's first call, a thorough one was
# asked for.
QUICK = {"cpu": (512, 2), "cuda": (2048, 4)}
THOROUGH = {"cpu": (2048, 4), "cuda": (8192, 8)}
# Tokens are this many fewer, so that the last blocks are ragged.
RAGGED = 27
DENSITY = 0.25
LARGEST_BLOCK = 256
ROUNDS = 5
# After this many seconds a quick trial begins no further round.
QUICK_SECONDS = 0.1
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Units of rounding a row may be off; 16 bits are rounded once or twice, float32 in every sum.
ALLOWED = {torch.float32: 256.0, torch.bfloat16: 4.0, torch.float16: 4.0}
# A gradient is the product of two such results, one of them a difference.
GRADIENT_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A problem of random inputs, and the float64 results that a backend must come close to.

    ``exact``: the output ``[1, s, h, d]``, then the LSE ``[1, h, s, 1]`` if asked for, or the three
    gradients ``[1, s, h, d]`` if needed. ``limit``: seconds after which no further round begins.
    """

    inputs: AttentionInputs
    exact: tuple[Tensor, ...]
    limit: float | None

    @classmethod
    def of(cls, call: RankedCall, *, thorough: bool) -> Trial:
        """The same problem every time: density 0.25, lists of unequal length, ragged at both ends.

        Raises SparseError for a device, dtype or block size that is not ranked.
        """
        device, block_size = call.device, call.block_size
        if not rankable(device, call.dtype, block_size):
            raise SparseError(
                f"{call.dtype} on {device} in blocks of {block_size} is not ranked; give float32, "
                f"bfloat16 or float16 on cpu or cuda, in blocks of at most {LARGEST_BLOCK} tokens."
            )
        tokens, heads = (THOROUGH if thorough else QUICK)[device.type]
        tokens = max(tokens, 4 * max(block_size)) - RAGGED
        noise = torch.Generator(device="cpu").manual_seed(0)
        q, k, v = (
            torch.randn(1, tokens, heads, call.head_dim, generator=noise, device="cpu")
            .to(device, call.dtype)
            .requires_grad_(call.needs_grad)
            for _ in range(3)
        )
        inputs = AttentionInputs(
            q=q,
            k=k,
            v=v,
            mask=_mask(tokens, heads, block_size, noise).to(device),
            scale=call.head_dim**-0.5,
            return_lse=call.return_lse,
        )
        doubled = (x.detach().double().requires_grad_(call.needs_grad) for x in (q, k, v))
        exact = _results(ReferenceBackend(), inputs, *doubled)
        return cls(inputs=inputs, exact=exact, limit=None if thorough else QUICK_SECONDS)

    def misfit(self, backend: Backend) -> str | None:
        """Why the backend's results are wrong, or None; raises whatever the backend raises."""
        inputs = self.inputs
        found = _results(backend, inputs, inputs.q, inputs.k, inputs.v)
        allowed = ALLOWED[inputs.q.dtype] * UNIT[inputs.q.dtype]
        for index, (got, exact) in enumerate(zip(found, self.exact, strict=True)):
            factor = GRADIENT_FACTOR if index and inputs.needs_grad else 1.0
            error = _row_error(got, exact)
            if not error <= factor * allowed:  # NaN is wrong too
                return (
                    f"wrong result: a row is off by {error:.2g} of its size, "
                    f"allowed are {factor * allowed:.2g}"
                )
        return None

    def seconds(self, backends: Sequence[Backend]) -> dict[str, float]:
        """The best time of a call of each backend, in rounds that all take part in."""
        best = dict.fromkeys((backend.name for backend in backends), float("inf"))
        started = time.perf_counter()
        for _ in range(ROUNDS):
            for backend in backends:
                best[backend.name] = min(best[backend.name], self._timed(backend))
            if self.limit is not None and time.perf_counter() - started > self.limit:
                break
        return best

    def _timed(self, backend: Backend) -> float:
        inputs = self.inputs
        _finish(inputs.q.device)
        started = time.perf_counter()
        _results(backend, inputs, inputs.q, inputs.k, inputs.v)
        _finish(inputs.q.device)
        return time.perf_counter() - started


def rankable(device: torch.device, dtype: torch.dtype, block_size: tuple[int, int]) -> bool:
    """Whether there is a trial for such calls."""
    return device.type in QUICK and dtype in UNIT and max(block_size) <= LARGEST_BLOCK


def _mask(
    tokens: int, heads: int, block_size: tuple[int, int], noise: torch.Generator
) -> BlockMask:
    rows, columns = (-(-tokens // size) for size in block_size)
    dense = torch.rand(1, heads, rows, columns, generator=noise, device="cpu") < DENSITY
    row = torch.arange(rows, device="cpu")
    dense[:, :, row, row % columns] = True  # no row without a block, which would have no gradient
    return BlockMask.from_dense(dense, block_size=block_size, q_len=tokens, kv_len=tokens)


def _results(
    backend: Backend, inputs: AttentionInputs, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, ...]:
    """What the backend makes of q, k and v: output, LSE if asked for, gradients if needed."""
    mask, lse_too = inputs.mask, inputs.return_lse
    call = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=inputs.scale, return_lse=lse_too)
    out, lse = backend.attention(call)
    if not inputs.needs_grad:
        return (out,) if lse is None else (out, lse[..., None])
    # q itself as the gradient of the output: any tensor of that shape that is not constant.
    grads = torch.autograd.grad(out, (q, k, v), q.detach())
    return (out.detach(), *grads)


def _row_error(got: Tensor, exact: Tensor) -> float:
    """The largest error of a row, relative to the row or to the average row where that is larger."""
    size = exact.norm(dim=-1)
    size = size.maximum(size.square().mean().sqrt())
    return float(((got.detach().double() - exact).norm(dim=-1) / size).max())


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
