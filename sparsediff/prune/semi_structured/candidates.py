"""The six ways to keep two of four consecutive input weights (MaskLLM, NeurIPS 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

GROUP, KEPT = 4, 2
# In the paper's order; choice n of a group means row n.
CANDIDATES = torch.tensor(
    [[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]],
    dtype=torch.bool,
)
_BITS = torch.tensor([8, 4, 2, 1], dtype=torch.uint8)


def groups(weight: Tensor) -> Tensor:
    """A weight ``[out, in]`` as groups ``[out, in / 4, 4]``, a view; SparseError for other shapes."""
    if weight.ndim != 2 or weight.shape[1] % GROUP or not weight.numel():
        raise SparseError(
            f"A weight is {list(weight.shape)}: groups of four need [out, in], with a number of inputs "
            f"that 4 divides. Leave this layer out."
        )
    return weight.view(len(weight), -1, GROUP)


def best_choices(scores: Tensor) -> Tensor:
    """The candidate that keeps the two largest of every group ``[..., 4]``: uint8 ``[...]``.

    Of equal scores the earlier stays.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :KEPT]
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, True)
    return choices_of(kept)


def choices_of(kept: Tensor) -> Tensor:
    """Which candidate each group bool ``[..., 4]`` is: uint8 ``[...]``; SparseError for none."""
    by_bits = torch.full((16,), len(CANDIDATES), dtype=torch.uint8, device=kept.device)
    places = (CANDIDATES * _BITS).sum(dim=1)
    by_bits[places] = torch.arange(len(CANDIDATES), dtype=torch.uint8, device=kept.device)
    found = by_bits[(kept * _BITS.to(kept.device)).sum(dim=-1)]
    if wrong := int((found == len(CANDIDATES)).sum()):
        raise SparseError(f"{wrong} groups of four do not keep exactly two weights.")
    return found


def kept_of(choices: Tensor) -> Tensor:
    """Choices ``[out, in / 4]`` as which weights stay: bool ``[out, in]``."""
    return CANDIDATES.to(choices.device)[choices.long()].flatten(1)


def crowded_groups(weight: Tensor) -> int:
    """How many groups of a weight ``[out, in]`` have more than two values that are not zero."""
    return int(((groups(weight) != 0).sum(dim=-1) > KEPT).sum())
