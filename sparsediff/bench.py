"""Kernel timings against dense attention: each number beside its error, none without a match."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.kernels import BlockMask, SparseError, block_mass, block_sparse_attention, dense
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.registry import ordered_backends

# Largest error against the reference, as a share of the largest number: score rounding in float32,
# one rounding of weights and of the output in the others. A wrong block is a hundred times that.
ERROR_LIMIT = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
ROW_SECONDS, ENOUGH_ROUNDS = 4.0, 3  # a slow kernel gets fewer rounds, but not fewer than these
MASS_LIMIT = 1e-5  # scores are summed in float32 whatever the inputs' dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchCase:
    """What is measured: self-attention of one shape.

    ``batch`` x ``heads`` x ``tokens`` x ``dim`` of ``dtype`` on ``device``, in blocks of ``block``
    tokens; ``repeat`` timed rounds, fewer for a kernel that takes seconds. Raises SparseError when
    a number is not positive.
    """

    batch: int = 1
    heads: int = 8
    tokens: int = 4096
    dim: int = 64
    block: int = 64
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    repeat: int = 7

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.tokens, self.dim, self.block, self.repeat)
        if min(sizes) < 1:
            raise SparseError(f"{self}: every size and the number of rounds must be at least 1.")
        if self.dtype not in ERROR_LIMIT:
            known = ", ".join(str(x).removeprefix("torch.") for x in ERROR_LIMIT)
            raise SparseError(f"{self.dtype} is not measured; choose one of {known}.")

    @classmethod
    def parse(cls, shape: str, **others: Any) -> BenchCase:
        """From "batch x heads x tokens x dim", such as "1x8x4096x64"."""
        try:
            batch, heads, tokens, dim = (int(part) for part in shape.split("x"))
        except ValueError:
            raise SparseError(
                f"shape {shape!r} is not batch x heads x tokens x dim; give it like 1x8x4096x64."
            ) from None
        return cls(batch=batch, heads=heads, tokens=tokens, dim=dim, **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One kernel at one density.

    ``seconds`` of each round; ``ratios`` to the dense run timed just before; ``error`` the largest
    against the reference as a share of its largest number, ``limit`` what it may be.
    """

    kernel: str
    density: float
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    error: float
    limit: float

    @property
    def match(self) -> bool:
        """Whether the kernel computed what the reference computes."""
        return self.error <= self.limit

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float:
        """Range of the middle half of the times, in seconds; 0 for fewer than two rounds."""
        return spread(self.seconds)

    @property
    def ratio(self) -> float | None:
        """Median time in units of dense attention; None where the results are wrong."""
        return statistics.median(self.ratios) if self.match else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        named = {"median": self.median, "iqr": self.iqr, "ratio": self.ratio, "match": self.match}
        return {**asdict(self), **named}


def spread(values: Sequence[float]) -> float:
    """Interquartile range."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def measure_kernels(case: BenchCase, densities: Sequence[float]) -> Iterator[BenchRow]:
    """Dense, then every usable backend at every density and its block mass, one row at a time.

    Dense is ``F.scaled_dot_product_attention`` on tensors in its own layout ``[b, h, s, d]``; the
    kernels get diffusers' ``[b, s, h, d]``. Raises SparseError for a density outside (0, 1].
    """
    for density in densities:
        if not 0 < density <= 1:
            raise SparseError(f"density {density} is not in (0, 1].")
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
        for name, label in usable_kernels(inputs):
            yield timer.row(
                label,
                mask.density,
                functools.partial(block_sparse_attention, q, k, v, mask, backend=name),
                right,
                ERROR_LIMIT[case.dtype],
            )
    yield from _mass_rows(case, timer, q, k, dense.dense_attention_lse(q, k, v)[1])


def _mass_rows(
    case: BenchCase, timer: Timer, q: Tensor, k: Tensor, lse: Tensor
) -> Iterator[BenchRow]:
    blocks = (case.block, case.block)
    inputs = MassInputs(q=q, k=k, lse=lse, block_size=blocks, scale=case.dim**-0.5)
    right = block_mass(q, k, lse, block_size=blocks, backend="reference")
    for backend in ordered_backends():
        if backend.name != "reference" and not backend.mass_reasons(inputs):
            yield timer.row(
                f"block mass, {_label(backend)}",
                1.0,
                functools.partial(block_mass, q, k, lse, block_size=blocks, backend=backend.name),
                right,
                MASS_LIMIT,
            )


def usable_kernels(inputs: AttentionInputs) -> list[tuple[str, str]]:
    """Name and label of each backend but the reference that can run the inputs."""
    return [
        (backend.name, _label(backend))
        for backend in ordered_backends()
        if backend.name != "reference" and not backend.reasons(inputs)
    ]


def _label(backend: Any) -> str:
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


class Timer:
    """Times a kernel and dense attention in turns, so that both meet the same load."""

    def __init__(self, case: BenchCase, run_dense: Callable[[], Tensor]) -> None:
        self._case = case
        self._run_dense = run_dense
        self._run_dense()

    def seconds(self, run: Callable[[], Tensor]) -> float:
        """One timed run; waits for the device before and after."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def row(
        self, label: str, density: float, run: Callable[[], Tensor], right: Tensor, limit: float
    ) -> BenchRow:
        """Compare the result, then time it; the first run, which may compile, is not timed."""
        error = relative_error(run(), right)
        rounds: list[tuple[float, float]] = []
        while len(rounds) < self._case.repeat:
            rounds.append((self.seconds(self._run_dense), self.seconds(run)))
            if len(rounds) >= ENOUGH_ROUNDS and sum(map(sum, rounds)) > ROW_SECONDS:
                break
        return BenchRow(
            kernel=label,
            density=density,
            seconds=tuple(own for _, own in rounds),
            ratios=tuple(own / dense_time for dense_time, own in rounds),
            error=error,
            limit=limit,
        )

    def dense_row(
        self,
        run: Callable[[], Tensor],
        mask: BlockMask,
        tensors: tuple[Tensor, Tensor, Tensor],
    ) -> BenchRow:
        """The dense kernel that also returns the LSE, against the plain one."""
        right = block_sparse_attention(*tensors, mask, backend="reference")
        return self.row("dense with LSE", 1.0, run, right, ERROR_LIMIT[self._case.dtype])

    def _wait(self) -> None:
        if self._case.device.startswith("cuda"):
            torch.cuda.synchronize()


def relative_error(found: Tensor, right: Tensor) -> float:
    """Largest difference over the largest number; inf where the result is not finite."""
    error = (found.float() - right.float()).abs().max() / right.float().abs().max()
    return error.item() if bool(error.isfinite()) else math.inf
