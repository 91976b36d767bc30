"""MMD²: the definition, no bias, gradients, and clear refusals."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsediff.distill.mmd_loss import mmd_loss, mmd_squared, polynomial_kernel
from sparsediff.kernels.errors import SparseError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """The estimate pair by pair, with Python's own sums."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def among(z: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return among(x) + among(y) - 2 * between


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (5, 5, 3), (7, 4, 16)])
def test_it_is_the_definition(n: int, m: int, d: int) -> None:
    x, y = normal(n, d), 0.5 + 2 * normal(m, d, seed=1)
    expected = by_definition(x.double().numpy(), y.double().numpy())
    found = mmd_squared(x, y)
    assert found.dtype == torch.float64
    # Sums of at most 49 terms below 1e4 in float64, in another order.
    assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_it_is_computed_in_float64() -> None:
    """In fp32 the difference of sums of 1e9 leaves nothing of an estimate of this size."""
    x, y = 60 + normal(64, 8), 60.001 + normal(64, 8, seed=1)
    exact = mmd_squared(x.double(), y.double())
    assert float(mmd_squared(x, y)) == float(exact)


def test_no_bias() -> None:
    """The mean over draws from one distribution is 0 within 3 standard errors; biased it is not."""
    draws = normal(400, 2, 8, 4)
    estimates = torch.stack([mmd_squared(x, y) for x, y in draws])
    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean()) < 3 * error

    def biased(x: Tensor, y: Tensor) -> Tensor:
        within = polynomial_kernel(x, x).mean() + polynomial_kernel(y, y).mean()
        return within - 2 * polynomial_kernel(x, y).mean()

    others = torch.stack([biased(x.double(), y.double()) for x, y in draws])
    assert others.mean() > 10 * others.std() / len(others) ** 0.5


def test_gradients() -> None:
    x, y = normal(3, 4).double(), normal(5, 4, seed=1).double()
    assert torch.autograd.gradcheck(mmd_squared, (x.requires_grad_(), y.requires_grad_()))


def test_it_falls_as_one_set_moves_to_the_other() -> None:
    x, y = normal(64, 4), normal(64, 4, seed=1)
    values = [float(mmd_squared(x + shift, y)) for shift in (2.0, 1.0, 0.5, 0.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.05 * values[0]


def test_it_sees_another_spread_around_the_same_mean() -> None:
    x, y = normal(256, 4), normal(256, 4, seed=1)
    assert mmd_squared(3 * x, y) > 20 * mmd_squared(x, y).abs()


def test_the_loss_reaches_generated_images_only() -> None:
    generated, real = (
        normal(4, 3, 2, 2).requires_grad_(),
        normal(6, 3, 2, 2, seed=1).requires_grad_(),
    )
    loss = mmd_loss(generated, real, lambda images: images.flatten(1))
    assert loss == mmd_squared(generated.flatten(1), real.flatten(1))
    loss.backward()
    assert generated.grad is not None
    assert float(generated.grad.abs().min()) > 0
    assert real.grad is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (normal(1, 3), normal(4, 3), "x has shape [1, 3]; needs [samples, width] with two samples"),
        (normal(4, 3), normal(1, 3), "y has shape [1, 3]"),
        (normal(4), normal(4), "x has shape [4]"),
        (normal(4, 0), normal(4, 0), "x has shape [4, 0]"),
        (normal(4, 3), normal(4, 2), "x has features of width 3, y of 2."),
        (normal(4, 3), normal(4, 3) / 0, "y has values that are not finite."),
        (normal(4, 3) * torch.nan, normal(4, 3), "x has values that are not finite."),
    ],
)
def test_refusals(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(SparseError, match=re.escape(message)):
        mmd_squared(x, y)
