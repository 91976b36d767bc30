"""Masks of zeros and ones drawn from logits, with gradients as if they were soft."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

MaskNoise = Literal["logistic", "gumbel", "none"]
NOISES: tuple[MaskNoise, ...] = ("logistic", "gumbel", "none")


def drawn_mask(
    logits: Tensor,
    noise: MaskNoise,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zeros and ones like logits, of any shape: 1 where logits + noise > 0 (MaskUNet).

    The gradient is that of sigmoid((logits + noise) / temperature), straight through the rounding.
    "logistic", the difference of two Gumbels, draws 1 with probability sigmoid(logit). "gumbel" is one
    Gumbel, as in the release: 1 - exp(-exp(logit)), which is .63 where the logit says .5, and far
    rarer 0 than it says: 1e-64 instead of 0.7 % at logit 5. "none" is for inference.
    """
    drawn = logits if noise == "none" else logits + _drawn(logits, noise, generator)
    rounded: Tensor = _Rounded.apply(torch.sigmoid(drawn / temperature), drawn > 0)  # type: ignore[no-untyped-call]
    return rounded


def _drawn(like: Tensor, noise: MaskNoise, generator: torch.Generator | None) -> Tensor:
    with torch.no_grad():
        first = _gumbel(like, generator)
        return first if noise == "gumbel" else first - _gumbel(like, generator)


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    waiting = torch.empty_like(like, dtype=torch.float32).exponential_(generator=generator)
    return -waiting.clamp_(min=torch.finfo(torch.float32).tiny).log()


class _Rounded(torch.autograd.Function):
    """What is open, exactly 0 or 1; the gradient goes to the soft mask unchanged."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, is_open: Tensor) -> Tensor:
        return is_open.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
