"""Pictures of the report as addresses that hold their own bytes: videos, frames, kept blocks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.media import data_uri, enlarge, png, shrink, to_uint8, write_frames

DIFFERENCE_GAIN = 4
INK = (47, 111, 171)  # the accent colour of page.css, readable on light and dark
_VIDEO_SIDES = (256, 640)  # a small video is enlarged, a large one shrunk, to keep the page usable
_FRAME_SIDE = 480
_MAP_PIXELS = 1_500_000  # of all kept-block maps together


def video(frames: Tensor, fps: int) -> str:
    """``[f, h, w, 3]`` in [0, 1] as an mp4 address; a small one repeats pixels, so no blur."""
    least, most = _VIDEO_SIDES
    with tempfile.TemporaryDirectory() as folder:
        path = write_frames(shrink(enlarge(frames, least), most), Path(folder) / "v.mp4", fps=fps)
        return data_uri(path.read_bytes(), ".mp4")


def frame(picture: Tensor) -> str:
    """``[h, w, 3]`` in [0, 1] as a png address."""
    return data_uri(png(to_uint8(shrink(picture[None], _FRAME_SIDE))[0]), ".png")


def difference(a: Tensor, b: Tensor) -> str:
    """How far two pictures are apart, amplified by DIFFERENCE_GAIN, as a grey png address."""
    apart = (a.float() - b.float()).abs().mean(dim=-1, keepdim=True) * DIFFERENCE_GAIN
    return frame(apart.clamp(0, 1).expand(-1, -1, 3))


def map_side(masks: int) -> int:
    """Largest side in pixels of a kept-block map when there are so many."""
    return max(24, min(160, int((_MAP_PIXELS / max(1, masks)) ** 0.5)))


def kept_blocks(mask: BlockMask, side: int) -> list[str]:
    """One png address per head of the first batch item: rows are query blocks, columns key blocks.

    A pixel's opacity is the share of its block pairs that are computed.
    """
    heads = mask.to_dense()[0].float().cpu()
    size = (min(side, mask.q_blocks), min(side, mask.kv_blocks))
    shares = functional.adaptive_avg_pool2d(heads[None], size)[0]
    return [tinted(share) for share in shares]


def tinted(share: Tensor) -> str:
    """Shares ``[y, x]`` in [0, 1] as a png address: the opacity of the ink, on any ground."""
    return data_uri(png(inked(share, INK)), ".png")


def inked(share: Tensor, ink: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Shares ``[y, x]`` in [0, 1] as the opacity of a colour: pixels ``[y, x, 4]``."""
    pixels = np.empty((*share.shape, 4), dtype=np.uint8)
    pixels[..., :3] = ink
    pixels[..., 3] = (share * 255).round().to(torch.uint8).numpy()
    return pixels


def strength(attention: Tensor) -> Tensor:
    """Attention weights of one map as shares of its strongest cell, in [0, 1].

    Their root, or the strongest cell would hide the others.
    """
    strong = attention.float().clamp(min=0)
    return (strong / strong.max().clamp(min=1e-30)).sqrt()
