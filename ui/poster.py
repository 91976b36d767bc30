"""The poster of a run: one small picture, its left half dense, its right half sparse."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.generation_result import GenerationResult
from sparsediff.kernels.errors import SparseError
from sparsediff.media import jpeg, shrink, to_uint8

_MOST_SIDE = 240  # pixels


def poster(result: GenerationResult) -> bytes:
    """The middle frame of both videos as JPEG; raises SparseError without a dense half."""
    if result.dense_frames is None:
        raise SparseError("This result has no dense half to compare with.")
    dense, sparse = (_middle(frames) for frames in (result.dense_frames, result.sparse_frames))
    half = dense.shape[2] // 2
    both = torch.cat([dense[:, :, :half], sparse[:, :, half:]], dim=2)
    return jpeg(to_uint8(both)[0])


def _middle(frames: Tensor) -> Tensor:
    """``[1, h, w, 3]`` of ``[f, h, w, 3]``, no side longer than a poster's."""
    place = len(frames) // 2
    return shrink(frames[place : place + 1], _MOST_SIDE)
