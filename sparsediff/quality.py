"""Quality: how far one video is from another, as PSNR, SSIM and temporal flicker.

Frames are float tensors ``[frames, height, width, channels]`` with values in [0, 1]; an image is one
frame. None of the figures says which video is nicer: they say how alike the two are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.errors import SparseError

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # (k1 L)^2 and (k2 L)^2 of Wang et al. 2004 at L = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Fidelity of a sparse video to the dense one of the same seed.

    ``psnr`` dB over all frames, infinite when they are equal; ``ssim`` mean over frames, 1 when equal;
    ``flicker`` the mean absolute change from frame to frame, sparse minus dense: above 0 the sparse
    video is less steady. ``dense_flicker`` and ``sparse_flicker`` are the two terms.
    """

    psnr: float
    ssim: float
    dense_flicker: float
    sparse_flicker: float

    @property
    def flicker(self) -> float:
        """Flicker of the sparse video minus that of the dense one."""
        return self.sparse_flicker - self.dense_flicker

    @property
    def identical(self) -> bool:
        """Whether every value of every frame is the same."""
        return math.isinf(self.psnr)


def quality(dense: Tensor, sparse: Tensor) -> Quality:
    """All figures of `sparse` against `dense`, both ``[f, h, w, c]`` in [0, 1].

    Raises SparseError when shapes differ or values are not finite numbers in [0, 1].
    """
    return Quality(
        psnr=psnr(dense, sparse),
        ssim=ssim(dense, sparse),
        dense_flicker=flicker(dense),
        sparse_flicker=flicker(sparse),
    )


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for equal videos.

    The squared error is averaged over all frames first, so one broken frame weighs in fully. Raises
    SparseError as `quality` does.
    """
    _check_pair(a, b)
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over pixels, channels and frames.

    Gaussian window of 11 x 11 with sigma 1.5 inside the picture; smaller pictures shrink the
    window. Raises SparseError as `quality` does.
    """
    _check_pair(a, b)
    window = _gaussian(min(_WINDOW, a.shape[1], a.shape[2]), a.device)
    scores = [_ssim_frame(x, y, window) for x, y in zip(a.double(), b.double(), strict=True)]
    return float(torch.stack(scores).mean())


def flicker(frames: Tensor) -> float:
    """Mean absolute difference of neighbouring frames, in [0, 1]; 0 for a single frame.

    Raises SparseError when `frames` is not a video with values in [0, 1].
    """
    _check(frames)
    if len(frames) < 2:
        return 0.0
    return float((frames[1:].double() - frames[:-1].double()).abs().mean())


def _gaussian(size: int, device: torch.device) -> Tensor:
    position = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2
    weight = torch.exp(-(position**2) / (2 * _SIGMA**2))
    return weight / weight.sum()


def _blur(pictures: Tensor, window: Tensor) -> Tensor:
    """Separable filter of ``[n, 1, h, w]`` over the positions where the window fits."""
    rows = functional.conv2d(pictures, window.reshape(1, 1, -1, 1))
    return functional.conv2d(rows, window.reshape(1, 1, 1, -1))


def _ssim_frame(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """SSIM of one frame ``[h, w, c]``; a frame at a time bounds the memory of long videos."""
    x, y = (t.permute(2, 0, 1)[:, None] for t in (a, b))
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x = _blur(x * x, window) - mean_x**2
    var_y = _blur(y * y, window) - mean_y**2
    both = _blur(x * y, window) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    return (alike / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean()


def _check(frames: Tensor) -> None:
    if frames.ndim != 4 or not frames.is_floating_point() or frames.numel() == 0:
        raise SparseError(
            f"Quality needs float frames [frames, height, width, channels]; found {frames.dtype} "
            f"{tuple(frames.shape)}."
        )
    low, high = float(frames.min()), float(frames.max())
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise SparseError(
            f"Quality needs pixel values in [0, 1]; found {low:g} to {high:g}. NaN means that the "
            f"run broke; try dtype bfloat16 instead of float16."
        )


def _check_pair(a: Tensor, b: Tensor) -> None:
    _check(a)
    _check(b)
    if a.shape != b.shape:
        raise SparseError(
            f"Quality compares videos of one size; found {tuple(a.shape)} and {tuple(b.shape)}."
        )
