"""Recall: how much of the dense attention's weight the blocks of a mask hold."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask


def recall(mass: Tensor, mask: BlockMask) -> Tensor:
    """Share of the attention mass that the blocks of `mask` hold (AdaSpa, arXiv 2502.21079, §1.1).

    mass ``[b, h, m, n]`` as `block_mass` of the dense LSE; a mask for one batch item or head holds for
    all. Returns float32 ``[b, h]`` in [0, 1]; 0 for a head without any mass. One head is looked at at a
    time, so that no second tensor of the size of the mass is made.
    """
    kept = mask.to_dense().expand(*mass.shape)
    shares = []
    for head in range(mass.shape[1]):
        held = (mass[:, head] * kept[:, head]).sum(dim=(-2, -1))
        whole = mass[:, head].sum(dim=(-2, -1))
        shares.append(held / whole.clamp(min=torch.finfo(mass.dtype).tiny))
    return torch.stack(shares, dim=1)
