"""Distances between sets of videos: 0 for sets of one model, not for others, with true errors."""

from __future__ import annotations

import pytest
import torch
from distill_distance import closer, halves_distance, kernel_distance, mean_distance, sign_test
from torch import Tensor

from sparsediff.distill.mmd_loss import mmd_squared

PROMPTS, WIDTH = 48, 16


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (PROMPTS, WIDTH), generator=torch.Generator().manual_seed(seed))


def test_a_set_has_no_distance_from_itself() -> None:
    found = kernel_distance(drawn(1), drawn(1))
    assert abs(found.value) < 1e-12  # rounding of sums of float64 values up to about 30
    assert found.error < 1e-12


def test_sets_of_one_model_differ_by_chance() -> None:
    """Prompts with features of their own, and for every set other noise: over 40 pairs of sets."""
    prompts = 2 * drawn(0)
    pairs = [[prompts + drawn(2 * n + side) for side in (1, 2)] for n in range(40)]
    found = [kernel_distance(a, b) for a, b in pairs]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    # The jackknife errs to the safe side: half of what is seen would be a wrong formula.
    assert 0.5 < sum(one.error for one in found) / 40 / float(values.std()) < 2
    unpaired = torch.stack([mmd_squared(a, b) for a, b in pairs])
    assert unpaired.mean() < -3 * unpaired.std() / 40**0.5, "why pairs of one prompt are left out"


def test_another_model_is_far() -> None:
    near, far = drawn(1), 0.5 + drawn(2)
    found = kernel_distance(far, drawn(3))
    assert found.value > 3 * found.error
    gain = closer(near, far, drawn(3))
    assert gain.value > 3 * gain.error
    assert gain.value == pytest.approx(found.value - kernel_distance(near, drawn(3)).value)
    assert closer(far, near, drawn(3)).value == pytest.approx(-gain.value)


def test_the_error_is_what_leaving_a_prompt_out_says() -> None:
    a, b, kept = drawn(1)[:6], drawn(2)[:6], ~torch.eye(6, dtype=torch.bool)
    without = torch.tensor([kernel_distance(a[k], b[k]).value for k in kept], dtype=torch.float64)
    expected = (5 / 6 * (without - without.mean()).square().sum()).sqrt()
    assert kernel_distance(a, b).error == pytest.approx(float(expected))


def test_halves_of_one_set_differ_by_chance() -> None:
    found = halves_distance(drawn(1), splits=100)
    assert abs(found.value) < 3 * found.error / 10
    assert found.error > kernel_distance(drawn(1), drawn(2)).error


def test_mean_distance_of_seeds() -> None:
    one = drawn(1, 4, 1, 100)
    same = mean_distance(one.expand(4, 6, 100))
    assert (same.value, same.error) == (0, 0)
    # Six corners of a cross: pairs differ by 1 in two places of 8, or by 2 in one of them.
    corners = torch.cat([torch.eye(8)[:3], -torch.eye(8)[:3]])[None]
    found = mean_distance(corners)
    assert found.value == pytest.approx((12 * 2**0.5 + 3 * 2) / 15 / 8**0.5)
    assert found.error == pytest.approx(0, abs=1e-12), "every corner is like the others"
    assert mean_distance(drawn(1, 4, 6, 100)).error > 0


def test_sign_test() -> None:
    """5 of 5 by chance: twice 1/32; 1 or fewer of 9, twice 10/512."""
    assert sign_test([(1, 0)] * 5 + [(1, 1)]) == {"wins": 5, "losses": 0, "ties": 1, "p": 0.0625}
    assert sign_test([(0, 1)] * 8 + [(1, 0)])["p"] == round(20 / 512, 4)
    assert sign_test([(1, 1)] * 3)["p"] == 1
    assert sign_test([(0, 1), (1, 0)])["p"] == 1


@pytest.mark.parametrize("count", [2, 5])
def test_sets_that_cannot_be_compared(count: int) -> None:
    other = {2: 2, 5: 6}[count]
    with pytest.raises(ValueError, match=f"sets of {count} and {other} videos"):
        kernel_distance(drawn(1)[:count], drawn(2)[:other])
