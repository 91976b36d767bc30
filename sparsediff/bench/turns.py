"""Kernel timings on the CPU: every backend in turns with dense attention, none without a match."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.bench.case import ERROR_LIMIT, BenchCase, BenchRow
from sparsediff.bench.timer import Timer
from sparsediff.kernels import BlockMask, SparseError, block_mass, block_sparse_attention, dense
from sparsediff.kernels.backend import Backend, explain
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.registry import find_backend, ordered_backends

MASS_LIMIT = 1e-5  # scores are summed in float32 whatever the inputs' dtype
# Triton's interpreter runs a kernel element by element in Python: for checks, not for timing.
NAMED_ONLY, INTERPRETED_TOKENS = "triton", 1024


def measure_kernels(
    case: BenchCase, densities: Sequence[float], backends: Sequence[str] = ()
) -> Iterator[BenchRow]:
    """Dense, then every usable backend at every density and its block mass, one row at a time.

    Dense is ``F.scaled_dot_product_attention`` on tensors in its own layout ``[b, h, s, d]``; the
    kernels get diffusers' ``[b, s, h, d]``. ``backends`` names the only ones to measure; Triton's
    interpreter takes part only if named, on few tokens. Raises SparseError for a density outside
    (0, 1] and for a named backend that cannot run the case.
    """
    check_densities(densities)
    measured = _measured(case, backends)
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.tokens, case.heads, case.dim)
    q, k, v = (
        torch.randn(shape, generator=generator).to(case.device, case.dtype) for _ in range(3)
    )
    qh, kh, vh = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    timer = Timer(case, lambda: F.scaled_dot_product_attention(qh, kh, vh))
    yield timer.dense_row(lambda: dense.dense_attention_lse(q, k, v)[0], _full(case), (q, k, v))
    for density in densities:
        mask = random_mask(case, density, generator)
        inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=case.dim**-0.5)
        right = block_sparse_attention(q, k, v, mask, backend="reference")
        for backend in measured:
            reasons = backend.reasons(inputs)
            if reasons and backends:
                raise explain(backend, reasons)
            if not reasons:
                yield timer.row(
                    _label(backend),
                    mask.density,
                    functools.partial(block_sparse_attention, q, k, v, mask, backend=backend.name),
                    right,
                    ERROR_LIMIT[case.dtype],
                )
    lse = dense.dense_attention_lse(q, k, v)[1]
    yield from _mass_rows(case, timer, (q, k, lse), measured)


def check_densities(densities: Sequence[float]) -> None:
    """Raise SparseError for a density outside (0, 1]."""
    for density in densities:
        if not 0 < density <= 1:
            raise SparseError(f"density {density} is not in (0, 1].")


def _measured(case: BenchCase, names: Sequence[str]) -> list[Backend]:
    """The backends named, or all but the reference and the interpreter."""
    if NAMED_ONLY in names and case.tokens > INTERPRETED_TOKENS:
        raise SparseError(
            f"On CPU triton runs in its interpreter, which is checked on up to {INTERPRETED_TOKENS} "
            f"tokens; found {case.tokens}. Give a smaller --shape, or --device cuda."
        )
    if names:
        return [find_backend(name) for name in names]
    return [x for x in ordered_backends() if x.name not in {"reference", NAMED_ONLY}]


def _mass_rows(
    case: BenchCase, timer: Timer, tensors: tuple[Tensor, Tensor, Tensor], measured: list[Backend]
) -> Iterator[BenchRow]:
    q, k, lse = tensors
    blocks = (case.block, case.block)
    inputs = MassInputs(q=q, k=k, lse=lse, block_size=blocks, scale=case.dim**-0.5)
    right = block_mass(q, k, lse, block_size=blocks, backend="reference")
    for backend in measured:
        if not backend.mass_reasons(inputs):
            yield timer.row(
                f"block mass, {_label(backend)}",
                1.0,
                functools.partial(block_mass, q, k, lse, block_size=blocks, backend=backend.name),
                right,
                MASS_LIMIT,
            )


def _label(backend: Backend) -> str:
    variant = getattr(backend, "variant", None)
    return f"{backend.name} ({variant})" if variant else str(backend.name)


def random_mask(case: BenchCase, density: float, generator: torch.Generator) -> BlockMask:
    """Equally many random key blocks in every row, other ones in each head."""
    blocks = math.ceil(case.tokens / case.block)
    chosen = max(1, round(density * blocks))
    scores = torch.rand(1, case.heads, blocks, blocks, generator=generator)
    return BlockMask.from_indices(
        scores.topk(chosen, dim=-1).indices.to(case.device),
        block_size=case.block,
        q_len=case.tokens,
        kv_len=case.tokens,
    )


def _full(case: BenchCase) -> BlockMask:
    return BlockMask.full(
        block_size=case.block, q_len=case.tokens, kv_len=case.tokens, device=case.device
    )
