"""TokenSize: what one token of a video covers, and which sizes make whole tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.models import facts_of
from sparsediff.models.layouts import patch

Size = tuple[int, int, int]  # width, height, frames


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSize:
    """``width`` and ``height`` of a token in pixels.

    ``latent_frames`` latent frames of a token; ``frames`` pixel frames of each latent frame but the
    first, which is of ``first`` frames; ``sides`` what the pipeline wants width and height to be
    multiples of.
    """

    width: int
    height: int
    latent_frames: int
    frames: int
    sides: int = 1
    first: int = 1

    @classmethod
    def of(cls, model: Any, vae: Any) -> TokenSize:
        """From the configs of a supported denoiser and of its autoencoder (None: 8 pixels)."""
        facts = facts_of(model)
        time, rows, columns = patch(model)
        spatial, temporal = _scales(vae)
        side = spatial * (facts.packed if facts else 1)
        return cls(
            width=side * columns,
            height=side * rows,
            latent_frames=time,
            frames=temporal,
            sides=facts.sides if facts else 1,
            first=temporal if facts and facts.whole_frames else 1,
        )

    def grid(self, size: Size) -> tuple[int, int, int]:
        """Tokens along time, height and width; raises SparseError when there is not one."""
        width, height, frames = size
        latents = (frames - self.first) // self.frames + 1
        # CogVideoX 1.5 takes latent frames in pairs; its pipeline completes an odd number.
        pairs = -(-latents // self.latent_frames)
        grid = (pairs, height // self.height, width // self.width)
        if min(grid) < 1:
            raise SparseError(
                f"{_text(size)} leaves no token: one covers {self.width} x {self.height} pixels and "
                f"{self.latent_frames} latent frame(s). Give a larger --size."
            )
        return grid

    def size(self, grid: tuple[int, int, int]) -> Size:
        """Width, height and frames that make such a `grid` of whole tokens: its inverse."""
        time, rows, columns = grid
        frames = (time * self.latent_frames - 1) * self.frames + self.first
        return columns * self.width, rows * self.height, frames

    def check(self, size: Size, *, pipeline: str) -> None:
        """Raise SparseError, with the nearest size that fits, when `pipeline` cannot make this one."""
        steps = (math.lcm(self.width, self.sides), math.lcm(self.height, self.sides), self.frames)
        rests = (size[0] % steps[0], size[1] % steps[1], (size[2] - self.first) % steps[2])
        needs = [
            f"{name} has to be a multiple of {step}"
            for name, step, rest in zip(("width", "height"), steps, rests, strict=False)
            if rest
        ]
        if rests[2]:
            more = ", plus 1" if self.first == 1 else ""
            needs.append(f"frames have to be a multiple of {self.frames}{more}")
        if not needs:
            return
        near = (
            _nearest(size[0], steps[0]) or steps[0],
            _nearest(size[1], steps[1]) or steps[1],
            _nearest(size[2] - self.first, steps[2]) + self.first,
        )
        raise SparseError(
            f"{pipeline} cannot make {_text(size)}: {'; '.join(needs)}. The nearest size that fits is "
            f"{_text(near)}."
        )


def text_tokens(model: nn.Module, length: int) -> int:
    """Text tokens inside self-attention of a text of `length` tokens."""
    facts = facts_of(model)
    if facts is None or facts.text == "none":
        return 0
    return facts.texts * length + facts.more_text


def beside_grid(model: nn.Module, grid: tuple[int, int, int], *, text: int) -> int:
    """Tokens inside self-attention beside those of `grid`, with a prompt of `text` tokens."""
    facts = facts_of(model)
    own = facts.beside(grid) if facts is not None and facts.beside is not None else 0
    return own + text_tokens(model, text)


def _scales(vae: Any) -> tuple[int, int]:
    """Pixels along a side, and frames, of one latent."""
    config = vae.config if vae is not None else {}
    spatial = config.get("scale_factor_spatial") or getattr(vae, "spatial_compression_ratio", 0)
    names = ("scale_factor_temporal", "temporal_compression_ratio")
    temporal = next((config[name] for name in names if config.get(name)), 0) or getattr(
        vae, names[1], 0
    )
    if not spatial:
        spatial = 2 ** (len(config.get("block_out_channels", ())) - 1) if config else 8
    return int(spatial), int(temporal or 1)


def _nearest(value: int, step: int) -> int:
    return (value + step // 2) // step * step


def _text(size: Size) -> str:
    return "x".join(map(str, size))


def parse_size(text: str) -> Size:
    """Width, height, frames from "832x480x81" or "1024x1024"; raises SparseError for anything else."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise SparseError(
            f"size {text!r}: needs WIDTHxHEIGHTxFRAMES in pixels, such as 832x480x81."
        )
    width, height, frames = (*map(int, parts), 1)[:3]
    return width, height, frames
