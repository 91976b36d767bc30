"""Benchmarks of the kernels: each number beside its error, none without a match."""

from sparsediff.bench.case import BenchCase, BenchRow, spread
from sparsediff.bench.turns import measure_kernels

__all__ = ["BenchCase", "BenchRow", "measure_kernels", "spread"]
