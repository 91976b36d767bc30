"""How much the heaviest blocks of two runs have in common, and how much mass one keeps of the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Masses are [prompts, seeds, steps, layers, heads, query blocks, key blocks]; what is found is
# [steps, layers, heads].
PROMPTS, SEEDS, STEPS = 0, 1, 2
PARTS = ("early", "middle", "late")
TIMES, ELSEWHERE = "the next or previous step", "another prompt and other noise"
HEADS, RANDOM = "other heads", "random blocks"
OWN, FIXED = "the call's own heaviest blocks", "those of other prompts and noise"


def overlaps(masses: Tensor, density: float) -> dict[str, Tensor]:
    """Mean IoU ``[steps, layers, heads]`` of the heaviest blocks, by what differs."""
    blocks = chosen(masses, density)
    noise = torch.rand(masses.shape, generator=torch.Generator().manual_seed(0))
    return {
        TIMES: across(blocks, STEPS, neighbours=True),
        "other steps of the run": across(blocks, STEPS),
        "another prompt, same noise": across(blocks, PROMPTS),
        "other noise, same prompt": across(blocks, SEEDS),
        ELSEWHERE: across(blocks, PROMPTS, SEEDS),
        HEADS: across_heads(blocks),
        RANDOM: across(chosen(noise, density), PROMPTS),
    }


def kept(masses: Tensor, density: float) -> dict[str, Tensor]:
    """Share of the mass ``[steps, layers, heads]`` that a choice of blocks holds."""
    noise = torch.rand(masses.shape, generator=torch.Generator().manual_seed(0))
    return {
        OWN: own_mass(masses, density),
        FIXED: kept_mass(masses, density),
        "the same, one choice for a third of the run": kept_mass(
            masses, density, spread=len(PARTS)
        ),
        RANDOM: (masses.flatten(-2) * chosen(noise, density))
        .sum(-1)
        .div(masses.flatten(-2).sum(-1))
        .mean(dim=(PROMPTS, SEEDS)),
    }


def chosen(masses: Tensor, density: float) -> Tensor:
    """The heaviest key blocks of every row: float32 0 or 1, rows and columns in one dimension."""
    keep = max(1, math.floor(density * masses.shape[-1] + 0.5))
    best = masses.topk(keep, dim=-1).indices
    return torch.zeros_like(masses).scatter_(-1, best, 1.0).flatten(-2)


def across(blocks: Tensor, *dims: int, neighbours: bool = False) -> Tensor:
    """Mean IoU with the runs, or steps, that differ in every one of `dims` and in nothing else.

    With `neighbours` only those that differ by one. ``blocks`` as `chosen` gives them.
    """
    sizes = [blocks.shape[dim] for dim in dims]
    last = blocks.movedim(dims, tuple(range(-1 - len(dims), -1)))
    flat = last.flatten(-1 - len(dims), -2)
    places = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(dims))
    apart = (places[:, None] - places[None]).abs()
    related = ((apart == 1) if neighbours else (apart > 0)).all(-1)
    found = _mean_iou(flat, related).unflatten(-1, sizes)
    found = found.movedim(tuple(range(-len(dims), 0)), dims)
    return found.mean(dim=(PROMPTS, SEEDS))


def across_heads(blocks: Tensor) -> Tensor:
    """Mean IoU of a head with all other heads of the model in the same call of the same run."""
    shape = blocks.shape[3:5]
    flat = blocks.flatten(3, 4)
    others = ~torch.eye(flat.shape[3], dtype=torch.bool)
    return _mean_iou(flat, others).unflatten(-1, shape).mean(dim=(PROMPTS, SEEDS))


def kept_mass(masses: Tensor, density: float, *, spread: int | None = None) -> Tensor:
    """Share of a run's mass held by the blocks that are heaviest on average in the other runs.

    Other runs are those of another prompt and another seed, at the same step; ``spread`` averages over
    the steps of so many parts of the run as well, so that one choice serves a whole part.
    """
    shares = []
    prompts, seeds = masses.shape[:2]
    for prompt in range(prompts):
        for seed in range(seeds):
            other = _others(masses, prompt, seed)
            if spread is not None:
                other = torch.cat(
                    [x.mean(0, True).expand_as(x) for x in other.tensor_split(spread)]
                )
            shares.append(_held(masses[prompt, seed], other, density))
    return torch.stack(shares).mean(0)


def own_mass(masses: Tensor, density: float) -> Tensor:
    """Share of the mass that the heaviest blocks of the very same call hold."""
    return _held(masses, masses, density).mean(dim=(PROMPTS, SEEDS))


def _others(masses: Tensor, prompt: int, seed: int) -> Tensor:
    keep = [
        masses[p, s]
        for p in range(masses.shape[0])
        for s in range(masses.shape[1])
        if p != prompt and s != seed
    ]
    return torch.stack(keep).mean(0)


def _held(masses: Tensor, ranked: Tensor, density: float) -> Tensor:
    flat = masses.flatten(-2)
    return (flat * chosen(ranked, density)).sum(-1) / flat.sum(-1)


def _mean_iou(blocks: Tensor, related: Tensor) -> Tensor:
    """Mean IoU of each of ``[..., x, blocks]`` with those it is related to by ``[x, x]``."""
    common = blocks @ blocks.transpose(-1, -2)
    size = blocks.sum(-1)
    iou = common / (size[..., :, None] + size[..., None, :] - common)
    return (iou * related).sum(-1) / related.sum(-1)
