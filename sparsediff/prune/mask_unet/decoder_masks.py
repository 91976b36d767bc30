"""DecoderMasks: MaskUNet's trained part, at work on a UNet that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.mask_unet.block_masks import BlockMasks
from sparsediff.prune.mask_unet.decoder_linears import block_channels, decoder_linears
from sparsediff.prune.mask_unet.drawn_mask import drawn_mask
from sparsediff.prune.mask_unet.mask_config import MaskConfig
from sparsediff.prune.mask_unet.mask_files import load_masks, save_masks
from sparsediff.prune.mask_unet.masked_linears import masked_linears


class DecoderMasks(nn.Module):
    """Masks for the attention weights of a UNet's up blocks, by timestep and sample (arXiv 2505.03097).

    A module of its own, fp32: train its parameters while `applied`. In training mode masks are drawn
    with noise, in evaluation they are not. At the start every mask is open: in evaluation the UNet's
    output is the plain one, in training 0.7 % of weights are closed at random (sigmoid(-opening)).
    Costs time and memory in every step (a mask of each masked weight and sample), and saves none.

    Raises UnsupportedModelError for anything but a UNet2DConditionModel.
    """

    def __init__(self, unet: nn.Module, config: MaskConfig | None = None) -> None:
        super().__init__()
        self.config = config or MaskConfig()
        self.paths = decoder_linears(unet)
        self.blocks = nn.ModuleDict()
        for block, paths in self.paths.items():
            sizes = {path: _size(unet, path) for path in paths}
            self.blocks[str(block)] = BlockMasks(block_channels(unet, block), sizes, self.config)

    @contextmanager
    def applied(
        self, unet: nn.Module, *, generator: torch.Generator | None = None
    ) -> Iterator[None]:
        """Inside, the UNet runs with its decoder's weights masked; bit for bit as before afterwards.

        ``generator``: a CPU generator for the noise of training; torch's own where None. Gradient
        checkpointing draws the same noise again. Raises SparseError for a UNet of other layers.
        """
        self._check(unet)
        with ExitStack() as stack:
            for block, paths in self.paths.items():
                state = _BlockState(self, self.blocks[str(block)], paths, generator)
                up: Any = unet.get_submodule(f"up_blocks.{block}")
                handle = up.register_forward_pre_hook(state.entered, with_kwargs=True)
                stack.callback(handle.remove)
                stack.enter_context(masked_linears(unet, paths, state.mask))
            yield

    def save_pretrained(self, folder: Path | str) -> None:
        """Write configuration and weights, safetensors and JSON; all or nothing. Raises SparseError."""
        save_masks(Path(folder), self.config, dict(self.state_dict()))

    @classmethod
    def load(cls, folder: Path | str, unet: nn.Module) -> DecoderMasks:
        """The masks of `save_pretrained` for a UNet, in evaluation mode, on the UNet's device.

        Raises SparseError for files of another kind and masks of another UNet.
        """
        config, tensors = load_masks(Path(folder))
        masks = cls(unet, config)
        wanted = masks.state_dict()
        wrong = [
            name
            for name in sorted({*wanted, *tensors})
            if name not in wanted
            or name not in tensors
            or wanted[name].shape != tensors[name].shape
        ]
        if wrong:
            raise SparseError(
                f"{folder} holds masks of another UNet: {len(wrong)} tensors differ, such as "
                f"{wrong[0]}. Load the UNet that they were trained for."
            )
        masks.load_state_dict(tensors)
        return masks.to(next(unet.parameters()).device).eval()

    def _check(self, unet: nn.Module) -> None:
        if decoder_linears(unet) != self.paths:
            raise SparseError(
                "These masks were made for a UNet with other attention in its up blocks. Make new ones "
                "with DecoderMasks(unet)."
            )
        for block in self.blocks.values():
            for name, adapter in block.adapters.items():  # type: ignore[operator,union-attr]
                size = _size(unet, name.replace("/", "."))
                if (adapter.rows.out_features, adapter.columns.out_features) != size:
                    raise SparseError(
                        f"{name.replace('/', '.')} has weights {list(size)}, not those that these "
                        f"masks were made for. Make new ones: DecoderMasks(unet)."
                    )


class _BlockState:
    """What an up block was given in the forward that runs now, and the masks that follow."""

    def __init__(
        self,
        masks: DecoderMasks,
        block: Any,
        paths: tuple[str, ...],
        generator: torch.Generator | None,
    ) -> None:
        self.masks, self.block, self.generator = masks, block, generator
        self.place = {path: place for place, path in enumerate(paths)}
        self.map: Tensor | None = None
        self.seed = 0

    def entered(self, up: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before the block's forward: note its map, and the seed of its noise."""
        told = dict(
            zip(("hidden_states", "res_hidden_states_tuple", "temb"), arguments, strict=False)
        )
        told |= named
        skip = told["res_hidden_states_tuple"][-1]
        self.map = self.block.map(told["hidden_states"], skip, told["temb"])
        self.seed = int(torch.randint(2**62, (), generator=self.generator))

    def mask(self, path: str, x: Tensor) -> Tensor:
        """The mask of a layer in this forward; equal whenever it is asked for."""
        if self.map is None:
            raise SparseError(f"{path} ran outside of its UNet; masks follow what the UNet sees.")
        config = self.masks.config
        draw = partial(
            drawn_mask, self.block.logits(path, self.map), temperature=config.temperature
        )
        if not self.masks.training or config.noise == "none":
            return draw("none")
        generator = torch.Generator(x.device).manual_seed(self.seed + self.place[path])
        return draw(config.noise, generator=generator)


def _size(unet: nn.Module, path: str) -> tuple[int, int]:
    layer: Any = unet.get_submodule(path)
    return int(layer.out_features), int(layer.in_features)
