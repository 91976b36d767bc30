"""Outlook: what a sparse run of a model will gain here, before anything of the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from math import exp, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.estimate import ModelEstimate
from sparsediff.gain.block import rest_over_attention
from sparsediff.gain.case import GainCase
from sparsediff.gain.prediction import BREAK_EVEN, Prediction, predict
from sparsediff.gain.trial import times_of
from sparsediff.search import Method, TokenGrid
from sparsediff.search.token_order import RASTER


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """The gate's own prediction of a run, and what follows from it.

    ``attention_share`` of a dense step's time; ``speedup`` of the denoising loop; ``break_even`` the
    tokens from which the same method pays on this machine: the fewest that were timed where those pay
    already, None where none do.
    """

    prediction: Prediction
    attention_share: float
    break_even: int | None

    @property
    def speedup(self) -> float:
        """Dense time over sparse time of the whole denoising loop."""
        return 1 / (1 - self.attention_share * (1 - self.prediction.ratio))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            **self.prediction.to_dict(),
            "attention_share": self.attention_share,
            "speedup": self.speedup,
            "break_even": self.break_even,
        }


def outlook(
    figures: ModelEstimate, method: Method, device: torch.device, *, backend: str = "auto"
) -> Outlook | str:
    """For one sample of `figures` with torch's own attention; why there is none where nothing is timed.

    Times come from this machine's file, or are measured now, within some seconds.
    """
    case = model_case(figures, method, device, backend=backend)
    reason = case.untimed()
    if reason is not None:
        return reason
    return Outlook(
        prediction=_prediction(case, method, model_grid(figures), figures.steps),
        attention_share=attention_share(case, figures),
        break_even=break_even(case, method, figures.steps),
    )


def model_case(
    figures: ModelEstimate, method: Method, device: torch.device, *, backend: str = "auto"
) -> GainCase:
    """The self-attention of one sample of a model."""
    return GainCase(
        tokens=figures.tokens,
        streams=figures.heads,
        head_dim=figures.head_dim,
        dtype=getattr(torch, figures.dtype),
        device=device,
        block_size=method.block_size,
        backend=backend,
        compensate=method.compensate,
        moved=method.token_order != RASTER,
    )


def model_grid(figures: ModelEstimate) -> TokenGrid:
    """The tokens of a model's self-attention."""
    frames, height, width = figures.grid
    return TokenGrid(frames=frames, height=height, width=width, text_after=figures.text_tokens)


def attention_share(
    case: GainCase, figures: ModelEstimate, clock: Callable[[], float] | None = None
) -> float:
    """The part of a dense step's time that is self-attention; `clock` as in `Turns`."""
    rest = rest_over_attention(
        case,
        torch_attention,
        width=figures.heads * figures.head_dim,
        weights=figures.token_weights // figures.layers,
        clock=clock,
    )
    return 1 / (1 + rest)


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention of ``[b, s, h, d]`` as diffusers' default backend runs it."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def break_even(case: GainCase, method: Method, steps: int) -> int | None:
    """The tokens from which on a method pays, between the lengths that are timed; see `Outlook`."""
    ratios: list[tuple[int, float]] = []
    for tokens in _lengths(case):
        shorter = replace(case, tokens=tokens)
        grid = TokenGrid(frames=1, height=tokens, width=1)
        ratios.append((tokens, _prediction(shorter, method, grid, steps).ratio))
    return crossing(ratios)


def crossing(ratios: list[tuple[int, float]]) -> int | None:
    """Where the ratio falls below break-even for good: on a line through logarithms of both."""
    paying = list(takewhile(lambda found: found[1] < BREAK_EVEN, reversed(ratios)))
    if not paying:
        return None
    if len(paying) == len(ratios):
        return ratios[0][0]
    (low, above), (high, below) = ratios[-len(paying) - 1], paying[-1]
    part = log(above / BREAK_EVEN) / log(above / below)
    return round(exp(log(low) + part * (log(high) - log(low))))


def _lengths(case: GainCase) -> Iterator[int]:
    """Two blocks, four, ..., as far as whole sequences are timed; longer ones scale."""
    tokens = 2 * case.block_size
    while replace(case, tokens=tokens).timed.grid.tokens == tokens:
        yield tokens
        tokens *= 2


def _prediction(case: GainCase, method: Method, grid: TokenGrid, steps: int) -> Prediction:
    times = times_of(case, torch_attention)
    return predict(case, times, method, density=method.computed_density(grid), steps=steps)
