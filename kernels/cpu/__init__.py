"""The cpu backend: C++ built on first use, else the gather path."""

from sparsediff.kernels.cpu.backend import CpuBackend

__all__ = ["CpuBackend"]
