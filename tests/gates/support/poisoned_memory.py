"""Tensors in the middle of NaN, in the memory layouts that models use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LAYOUTS = ("slice", "heads first", "fused", "shared batch", "shared heads")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The numbers of x ``[b, s, h, d]`` as a view with NaN on all sides, in one of LAYOUTS."""
    if layout == "shared batch":
        return laid_out(x[:1], "slice").expand(x.shape)
    if layout == "shared heads":
        return laid_out(x[:, :, :1], "slice").expand(x.shape)
    if layout == "heads first":
        return laid_out(x.transpose(1, 2), "slice").transpose(1, 2)
    if layout == "fused":  # the middle part of a fused projection
        b, s, h, d = x.shape
        whole = torch.full((b, s + 2, 3 * h * d), torch.nan, dtype=x.dtype)
        view = whole[:, 1:-1, h * d : 2 * h * d].unflatten(-1, (h, d))
    else:
        around = [n + 2 for n in x.shape[:-1]]
        whole = torch.full((*around, x.shape[-1] + 8), torch.nan, dtype=x.dtype)
        view = whole[1:-1, 1:-1, 1:-1, 3 : 3 + x.shape[-1]]
    view.copy_(x)
    return view


@contextmanager
def nan_in_new_tensors() -> Iterator[None]:
    """Fill whatever torch.empty and its kin return with NaN: a missing store is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        fresh = torch.empty(3).isnan().all() and torch.empty_like(torch.ones(3)).isnan().all()
        if not (fresh and torch.ones(3).new_empty(3).isnan().all()):
            raise RuntimeError(
                "torch does not fill new tensors with NaN; poisoning would see nothing."
            )
        yield
    finally:
        torch.use_deterministic_algorithms(before)
