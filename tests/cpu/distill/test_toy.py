"""Trajectory matching in two dimensions, where every distribution is known.

Sliced-Wasserstein distance to the data after two steps, the perfect teacher -> the student, worst of
three seeds: flow matching 0.37 -> 0.09, v 0.49 -> 0.10, epsilon 0.50 -> 0.13, sample 0.50 -> 0.12.

Epsilon's table is Stable Diffusion's: alpha is 0.068 at its noisiest, so an error of epsilon is 15
times as large in the clean sample. With betas from 1e-4 to 0.02, where it is 160 times, no loss helped:
a trained teacher's 0.34 became 0.32 with steps weighed by alpha and the fake's error that of epsilon,
0.50 with the steps weighed alike, 0.72 with the fake's error that of the clean sample over sigma. A
net must know epsilon to a part in 1000 there.
"""

from __future__ import annotations

import pytest
import torch
from gaussian_ring import (
    denoise,
    distilled,
    levels_of,
    perfect,
    pretrained,
    sampled,
    samples,
    sliced_wasserstein,
)

ITERATIONS = 250
BOUND = 0.3  # of the teacher's own two steps


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def shares(kind: str, pulls: tuple[float, ...]) -> list[float]:
    """Distances of students to the data, as shares of the teacher's; one for each pull."""
    levels = levels_of(kind)
    teacher = pretrained(levels)
    data = samples(4000)
    start = sliced_wasserstein(sampled(perfect(levels), levels), data)
    assert start > 0.3  # two steps are not enough for the teacher
    found = []
    for pull in pulls:
        iterations = ITERATIONS if pull == 1 else ITERATIONS // 5
        student = distilled(teacher, levels, iterations, pull=pull)
        end = sliced_wasserstein(sampled(denoise(student, levels), levels), data)
        found.append(end / start)
    return found


def test_flow_matching_and_that_the_pull_does_it() -> None:
    """Neither a student that is pulled away from the teacher passes nor one that is not pulled."""
    student, away, alone = shares("flow", (1.0, -1.0, 0.0))
    assert student < BOUND
    assert away > 1
    assert 0.8 < alone < 1.2


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_predictions_of_a_table(kind: str) -> None:
    assert shares(kind, (1.0,))[0] < BOUND
