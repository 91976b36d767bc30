"""Which layers of a UNet are masked: queries, keys, values and outputs of its up blocks' attention."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.models import unwrapped
from sparsediff.prune.structures import structures_of


def decoder_linears(unet: nn.Module) -> dict[int, tuple[str, ...]]:
    """Paths of the masked layers by the number of their up block; up blocks without any are left out.

    Raises UnsupportedModelError for anything but a UNet2DConditionModel with attention in its up
    blocks, over plain weights.
    """
    if "UNet2DConditionModel" not in {cls.__name__ for cls in type(unet).__mro__}:
        raise UnsupportedModelError(
            f"{type(unwrapped(unet)).__name__} has no masks of its decoder: MaskUNet's follow what the "
            f"up blocks of a UNet2DConditionModel see. For other models there are masks of heads and "
            f"neurons, for the whole run (sparsediff.prune.remove) or by timestep "
            f"(sparsediff.prune.buckets)."
        )
    found: dict[int, list[str]] = {}
    for one in structures_of(unet, ("heads",)):
        place, *parts = one.path.split(".")
        if place == "up_blocks":
            paths = dict.fromkeys(cut.module for cut in one.cuts)
            found.setdefault(int(parts[0]), []).extend(paths)
    if not found:
        raise UnsupportedModelError(
            "This UNet has no attention in its up blocks, so there is nothing to mask."
        )
    return {block: tuple(paths) for block, paths in sorted(found.items())}


def block_channels(unet: Any, block: int) -> tuple[int, int, int]:
    """Channels of an up block's first residual block: those it is given with the skip, those it gives,
    and those of the timestep's embedding."""
    first = unet.up_blocks[block].resnets[0]
    return (
        int(first.conv1.in_channels),
        int(first.conv1.out_channels),
        int(first.time_emb_proj.in_features),
    )
