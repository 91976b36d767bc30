"""Maximum mean discrepancy between generated and real samples (MMD-DDM, arXiv 2301.07969 §3).

Few-step samplers are fine-tuned by it through all of their steps: see `sample_chain`. Unlike trajectory
matching it needs real samples. Functions of tensors, usable from any trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

# Two sets of features [n, d] and [m, d] float64 to the kernel's values [n, m].
Kernel = Callable[[Tensor, Tensor], Tensor]


class Features(Protocol):
    """What makes images comparable: a network in evaluation mode, differentiable in the images.

    Judge a fine-tuned model by another network than the one it was trained by: the loss also falls
    by what only this network sees.
    """

    def __call__(self, images: Tensor, /) -> Tensor:
        """Features ``[n, d]`` of images or videos ``[n, ...]``."""


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / d + 1)³ for every pair of rows of x ``[n, d]`` and y ``[m, d]``: ``[n, m]``.

    The kernel of MMD-DDM and of the kernel inception distance: it compares means, covariances and
    third moments.
    """
    return (x @ y.mT / x.shape[1] + 1) ** 3


def mmd_squared(x: Tensor, y: Tensor, kernel: Kernel = polynomial_kernel) -> Tensor:
    """Unbiased estimate of MMD² between the distributions of x ``[n, d]`` and y ``[m, d]``; float64.

    Pairs of a sample with itself are left out, so its mean is 0 for equal distributions, and single
    estimates can be below 0. Everything is computed in float64: the estimate is a small difference
    of large sums. Gradients flow into both. Not additive over batches: the mean over two halves of a
    batch is noisier than the estimate of the whole. Raises SparseError for fewer than two rows,
    different widths, and values that are not finite.
    """
    for name, features in (("x", x), ("y", y)):
        _check(name, features)
    if x.shape[1] != y.shape[1]:
        raise SparseError(
            f"x has features of width {x.shape[1]}, y of {y.shape[1]}. Compute both with one network."
        )
    x, y = x.double(), y.double()
    return _among(kernel(x, x)) + _among(kernel(y, y)) - 2 * kernel(x, y).mean()


def mmd_loss(
    generated: Tensor, real: Tensor, features: Features, kernel: Kernel = polynomial_kernel
) -> Tensor:
    """MMD² between the features of generated and real images ``[n, ...]``, ``[m, ...]``; float64.

    Only `generated` gets a gradient. Raises as `mmd_squared`.
    """
    with torch.no_grad():
        target = features(real)
    return mmd_squared(features(generated), target, kernel)


def _among(values: Tensor) -> Tensor:
    """Mean over the pairs of different samples of one set, from its kernel's values ``[n, n]``."""
    count = len(values)
    mean: Tensor = (values.sum() - values.diagonal().sum()) / (count * (count - 1))
    return mean


def _check(name: str, features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise SparseError(
            f"{name} has shape {list(features.shape)}; needs [samples, width] with two samples or "
            f"more: the estimate compares different samples of one set. Use a larger batch."
        )
    if not bool(torch.isfinite(features.detach()).all()):
        raise SparseError(
            f"{name} has values that are not finite. Look at the images: the sampler diverged, or the "
            f"feature network runs in a precision too low for it."
        )
