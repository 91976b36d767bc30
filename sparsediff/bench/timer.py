"""Timer: a kernel and dense attention in turns, for one shape on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sparsediff.bench.case import ERROR_LIMIT, BenchCase, BenchRow
from sparsediff.kernels import BlockMask, block_sparse_attention

ROW_SECONDS, ENOUGH_ROUNDS = 4.0, 3  # a slow kernel gets fewer rounds, but not fewer than these


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
