"""Masks that can be learnt: gates over the six candidates, drawn by Gumbel-softmax (MaskLLM §3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.draws import seed_of
from sparsediff.prune.semi_structured.candidates import CANDIDATES

# MaskLLM's gates begin as normal noise of this size.
NOISE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One drawing of all masks: ``kappa`` scales the gates, ``tau`` is the temperature.

    ``seed`` is of the whole drawing: each layer draws from a generator of its own, so a layer that is
    computed twice has the same mask both times.
    """

    seed: int
    kappa: float
    tau: float


def initial_gates(path: str, groups: int, seed: int, device: torch.device) -> Tensor:
    """Gates ``[groups, 6]`` fp32 before training: noise that follows from seed and path."""
    generator = torch.Generator(device).manual_seed(seed_of(seed, "gates", path))
    return NOISE * torch.randn(groups, len(CANDIDATES), generator=generator, device=device)


def with_prior(gates: Tensor, choices: Tensor, strength: float) -> Tensor:
    """Gates ``[groups, 6]`` that lean towards known choices ``[groups]``.

    gate += (overlap - 1) std(gate) strength, the overlap of a candidate with the prior's being 2 for
    itself, 0 for its opposite and 1 for the other four.
    """
    options = CANDIDATES.to(gates)
    overlap = options[choices.to(gates.device).long()] @ options.T
    return gates + (overlap - 1) * gates.std() * strength


def soft_mask(gates: Tensor, path: str, draw: Draw) -> Tensor:
    """The mask ``[groups, 4]`` of a draw, fp32: its entries are in 0..1 and sum to 2 in every group.

    softmax((kappa gate + g) / tau) over the candidates, with Gumbel noise g = -log(-log u).
    """
    generator = torch.Generator(gates.device).manual_seed(seed_of(draw.seed, path))
    waits = torch.empty_like(gates).exponential_(generator=generator)
    noise = waits.clamp_(min=torch.finfo(waits.dtype).tiny).log_().neg_()
    shares = ((draw.kappa * gates + noise) / draw.tau).softmax(dim=-1)
    return shares @ CANDIDATES.to(shares)


def likely_choices(gates: Tensor) -> Tensor:
    """The candidate of the largest gate: uint8 ``[groups]``."""
    return gates.argmax(dim=-1).to(torch.uint8)
