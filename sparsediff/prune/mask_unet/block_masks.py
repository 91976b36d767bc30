"""BlockMasks: from what an up block is given to the logits of its layers' weights (MaskUNet)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.prune.mask_unet.mask_config import MaskConfig


class BlockMasks(nn.Module):
    """One generator for an up block, one adapter for each of its masked layers.

    ``channels``: see `block_channels`; ``sizes`` (out, in) by layer path.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        sizes: Mapping[str, tuple[int, int]],
        config: MaskConfig,
    ) -> None:
        super().__init__()
        self.generator = MapGenerator(channels, config)
        self.adapters = nn.ModuleDict(
            {
                _name(path): WeightAdapter(self.generator.size, size, config)
                for path, size in sizes.items()
            }
        )

    def map(self, sample: Tensor, skip: Tensor, embedding: Tensor) -> Tensor:
        """The block's map ``[b, out, in]`` of sample and skip ``[b, c, h, w]`` and the timestep's
        embedding ``[b, d]``."""
        found: Tensor = self.generator(sample, skip, embedding)
        return found

    def logits(self, path: str, of: Tensor) -> Tensor:
        """Logits ``[b, out, in]`` of a layer's weights from the block's map."""
        found: Tensor = self.adapters[_name(path)](of)
        return found


class MapGenerator(nn.Module):
    """Mean over all places of sample and skip, plus the timestep; two layers; a small map."""

    def __init__(self, channels: tuple[int, int, int], config: MaskConfig) -> None:
        super().__init__()
        inner, outer, embedded = channels
        self.size = (outer // config.factor, inner // config.factor)
        if not all(self.size):
            raise UnsupportedModelError(
                f"An up block of {inner} to {outer} channels has no map that is {config.factor} times "
                f"smaller. Take a smaller factor."
            )
        self.time = nn.Linear(embedded, inner, bias=False)
        self.hidden = nn.Linear(inner, config.hidden)
        self.out = nn.Linear(config.hidden, self.size[0] * self.size[1])
        for layer in (self.hidden, self.out):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        if config.start == "release":
            nn.init.zeros_(self.out.weight)

    def forward(self, sample: Tensor, skip: Tensor, embedding: Tensor) -> Tensor:
        """Shapes as `BlockMasks.map`."""
        means = [x.to(self.time.weight.dtype).mean(dim=(2, 3)) for x in (sample, skip)]
        seen = torch.cat(means, dim=1) + self.time(embedding.to(self.time.weight.dtype))
        flat = torch.relu(self.out(torch.relu(self.hidden(seen))))
        found: Tensor = flat.unflatten(1, self.size)
        return found


class WeightAdapter(nn.Module):
    """A map ``[b, o, i]`` as logits ``[b, out, in]``: its rows are mixed, then its columns."""

    def __init__(self, of: tuple[int, int], size: tuple[int, int], config: MaskConfig) -> None:
        super().__init__()
        self.rows = nn.Linear(of[0], size[0])
        self.columns = nn.Linear(of[1], size[1])
        nn.init.zeros_(self.columns.weight)
        nn.init.constant_(self.columns.bias, config.opening)
        nn.init.constant_(self.rows.bias, config.opening)
        if config.start == "release":
            nn.init.zeros_(self.rows.weight)
        else:
            nn.init.kaiming_normal_(self.rows.weight, nonlinearity="linear")

    def forward(self, of: Tensor) -> Tensor:
        """Shapes as `BlockMasks.logits`."""
        mixed: Tensor = self.columns(self.rows(of.mT).mT)
        return mixed


def _name(path: str) -> str:
    """A layer's path as torch takes it for the name of a module."""
    return path.replace(".", "/")
