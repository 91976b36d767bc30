"""Draws: random numbers that belong to a sample, whoever computes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def seed_of(*parts: int | str) -> int:
    """A seed that follows from its parts, such as ("noise", 42, iteration, sample)."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")


def shuffled_place(seed: int, number: int, count: int) -> int:
    """Where sample `number` is among `count` items: all in one random order after another."""
    epoch, place = divmod(number, count)
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return int(torch.randperm(count, generator=generator)[place])


class Draws:
    """One CPU generator for each sample of a batch.

    So a resumed training draws what an uninterrupted one does, and two processes together what one
    does; torch's own generators are not touched.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(self, x: Tensor) -> Tensor:
        """Standard noise in the shape and on the device of x ``[b, ...]``, fp32."""
        rows = [torch.randn(x.shape[1:], generator=g) for g in self._generators]
        return torch.stack(rows).to(x.device)

    def uniform(self, device: torch.device | str = "cpu") -> Tensor:
        """A number in 0..1 for each sample: ``[b]`` fp32."""
        return torch.cat([torch.rand(1, generator=g) for g in self._generators]).to(device)

    def uniforms(self, count: int) -> Tensor:
        """`count` numbers in 0..1 for each sample: ``[b, count]`` fp32 on the CPU."""
        return torch.stack([torch.rand(count, generator=g) for g in self._generators])

    def picks(self, count: int, of: int) -> Tensor:
        """Different numbers below `of` for each sample: int64 ``[b, count]``."""
        return torch.stack([torch.randperm(of, generator=g)[:count] for g in self._generators])
