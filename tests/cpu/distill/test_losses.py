"""The losses, the places compared at, and the draws, each against what the papers write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian_ring import levels_of
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.matching import TrajectoryMatching
from sparsediff.distill.noise import FlowNoise, Level, Noise
from sparsediff.distill.tdm_loss import fake_loss, guided, student_loss
from sparsediff.distill.trajectory import State, diffuse, noisier_times
from sparsediff.kernels.errors import SparseError

KINDS = ["flow", "epsilon", "v_prediction", "sample"]


def tensors(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def test_guidance_is_diffusers_own() -> None:
    positive, negative = tensors(2, 2, 3)
    torch.testing.assert_close(guided(positive, negative, 1.0), positive)
    torch.testing.assert_close(guided(positive, negative, 0.0), negative)
    torch.testing.assert_close(
        guided(positive, negative, 3.0), negative + 3 * (positive - negative)
    )
    assert guided(positive, None, 3.0) is positive


@pytest.mark.parametrize("huber", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 3.0])])
def test_gradient_of_the_students_loss(
    huber: float, normalise: bool, weight: Tensor | None
) -> None:
    """d = -(real - fake) / w; half d² has gradient d, the pseudo-Huber d / sqrt(d² + huber²)."""
    clean, real, fake = tensors(3, 2, 3, 4)
    clean.requires_grad_()
    student_loss(clean, real, fake, huber=huber, normalise=normalise, weight=weight).backward()
    far = (clean - real).abs().mean(dim=(1, 2), keepdim=True).detach()
    away = (fake - real) / (far if normalise else 1)
    expected = away / (away**2 + huber**2).sqrt() if huber else away
    if weight is not None:
        expected = expected * weight[:, None, None]
    assert clean.grad is not None
    torch.testing.assert_close(clean.grad, expected.detach() / clean.numel(), atol=1e-6, rtol=1e-4)


def test_the_students_loss_is_still_where_the_scores_agree() -> None:
    clean, real = tensors(2, 2, 3)
    clean.requires_grad_()
    loss = student_loss(clean, real, real)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert clean.grad is not None
    assert not clean.grad.any()


def test_a_student_at_the_teacher_is_not_divided_by_nothing() -> None:
    clean, fake = tensors(2, 2, 3)
    clean.requires_grad_()
    student_loss(clean, clean.detach(), fake).backward()
    assert clean.grad is not None
    assert bool(clean.grad.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_fakes_loss_is_the_error_of_its_output(kind: str) -> None:
    levels = levels_of(kind)
    x, one, other = tensors(3, 3, 2)
    level = levels.at(torch.tensor([100.0, 500.0, 1000.0]))
    fake, student = (levels.split(x, output, level)[0] for output in (one, other))
    found = float(fake_loss(fake, student, levels.gain(level)))
    # Clean samples of epsilon are some 15 times as large, and rounded at that size.
    assert found == pytest.approx(float((one - other).square().mean()), rel=1e-3)


def test_the_fakes_loss_teaches_the_fake_alone() -> None:
    fake, student = (x.requires_grad_() for x in tensors(2, 2, 3))
    fake_loss(fake, student, torch.ones(2)).backward()
    assert fake.grad is not None
    assert student.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_split_undoes_the_mixture(kind: str) -> None:
    levels = levels_of(kind)
    clean, noise = tensors(2, 4, 3)
    level = levels.at(torch.tensor([1.0, 250.0, 600.0, 1000.0]))
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    x = alpha * clean + sigma * noise
    output = {
        "flow": noise - clean,
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * clean,
        "sample": clean,
    }[kind]
    found = levels.split(x, output, level)
    torch.testing.assert_close(found[0], clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], noise, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["flow", "epsilon"])
@pytest.mark.parametrize("here", [0.0, 300.0, 1000.0])
def test_diffused_samples_have_the_level_asked_for(kind: str, here: float) -> None:
    levels = levels_of(kind)
    clean, noise, fresh = (
        torch.randn(50_000, generator=torch.Generator().manual_seed(n)) for n in range(3)
    )
    low, high = (levels.at(torch.full((1,), time)) for time in (here, max(here, 600.0)))
    x = (low.alpha * clean + low.sigma * noise)[None]
    found = diffuse(x, low, high, fresh[None])[0]
    assert float(found.std()) == pytest.approx(
        float((high.alpha**2 + high.sigma**2).sqrt()), rel=0.02
    )  # the error of a variance of 50 000 is 0.6 %
    assert float((found * clean).mean()) == pytest.approx(float(high.alpha), abs=0.02)


def state_of(start: float, end: float, count: int = 101) -> State:
    none = torch.zeros(count, 1)
    times = (torch.full((count,), time) for time in (start, end))
    return State(x=none, clean=none, noise=none, start=next(times), end=next(times))


def times_of(start: float, end: float, *, separate: bool) -> Tensor:
    share = torch.linspace(0, 1, 101)
    return noisier_times(state_of(start, end), FlowNoise(), share, separate=separate)


def test_separate_segments_do_not_overlap() -> None:
    high, low = (times_of(*ends, separate=True) for ends in ((1000, 500), (500, 0)))
    assert (float(high.min()), float(high.max())) == (500, 980)
    assert (float(low.min()), float(low.max())) == (20, 500)
    whole = times_of(500, 0, separate=False)
    assert (float(whole.min()), float(whole.max())) == (20, 980)
    assert bool((whole.diff() > 0).all())


@pytest.mark.parametrize("ends", [(1000.0, 982.5), (1000.0, 990.0), (10.0, 0.0), (982.5, 960.0)])
@pytest.mark.parametrize("separate", [True, False])
def test_no_place_is_less_noisy_than_the_step_ends(
    ends: tuple[float, float], separate: bool
) -> None:
    """With a shift of 8 the first of 8 steps ends above 0.98: noise cannot be taken away."""
    found = times_of(*ends, separate=separate)
    assert float(found.min()) >= ends[1]
    assert float(found.max()) <= (ends[0] if separate else 1000)
    assert float(found.max() - found.min()) >= 0.49 * (ends[0] - ends[1])


def test_draws_belong_to_their_sample() -> None:
    """Whoever else is in the batch, and however torch's own generator stands."""
    x = torch.empty(3, 2, 2)
    seeds = [seed_of("noise", 1, sample) for sample in range(3)]
    three, last = Draws(seeds), Draws(seeds[2:])
    before = torch.get_rng_state()
    for one, other in (
        (three.normal(x), last.normal(x[:1])),
        (three.uniform(), last.uniform()),
        (three.picks(2, 5), last.picks(2, 5)),
        (three.normal(x), last.normal(x[:1])),
    ):
        assert torch.equal(one[2:], other)
        assert not torch.equal(one[:1], one[1:2])
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(Draws([1]).picks(4, 4)[0].tolist())) == 4
    assert seed_of("a", 1, 2) == seed_of("a", 1, 2) != seed_of("a", 12)
    assert max(seeds) < 2**63


def matching_of(levels: Noise, **changes: Any) -> tuple[TrajectoryMatching, State, Draws]:
    matching = TrajectoryMatching(
        levels=levels, grid=StepGrid(times=(1000.0, 500.0, 0.0)), **changes
    )
    clean, noise = tensors(2, 2, 3)
    ends = torch.tensor([1000.0, 500.0]), torch.tensor([500.0, 0.0])
    state = State(x=noise, start=ends[0], end=ends[1], clean=clean, noise=noise)
    return matching, state, Draws([0, 1])


@pytest.mark.parametrize("kind", ["flow", "epsilon"])
def test_a_step_of_epsilon_weighs_as_one_of_a_velocity(kind: str) -> None:
    """The gradient to the model's output is sigma at every step, not sigma / alpha."""
    levels = levels_of(kind)
    matching, state, draws = matching_of(levels, huber=1e-6)
    output = torch.zeros(2, 3, requires_grad=True)

    def student(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return levels.split(x, output, level)

    def far(sign: float) -> Any:
        return lambda x, level: torch.full_like(x, sign)

    matching.student_loss(state, student, far(1.0), far(-1.0), draws).backward()
    assert output.grad is not None
    sigma = levels.at(state.start).sigma[:, None].expand(2, 3)
    torch.testing.assert_close(output.grad.abs() * 6, sigma, atol=1e-4, rtol=1e-3)


def test_nearness_holds_the_fake_to_the_teacher() -> None:
    found = []
    for nearness in (0.0, 0.5):
        matching, state, draws = matching_of(FlowNoise(), nearness=nearness)
        seen: list[Level] = []

        def teacher(x: Tensor, level: Level, seen: list[Level] = seen) -> Tensor:
            seen.append(level)
            return torch.zeros_like(x)

        loss = matching.fake_loss(
            state, lambda x, level: torch.ones_like(x), draws, teacher=teacher
        )
        found.append((float(loss), seen))
    (plain, unasked), (held, asked) = found
    assert not unasked  # a forward of the teacher costs as much as any
    expected = plain + 0.5 * float((1 / asked[0].sigma ** 2).mean())
    assert held == pytest.approx(expected, rel=1e-5)


def test_picked_states_are_those_of_their_samples() -> None:
    matching, _, draws = matching_of(FlowNoise())
    x = tensors(1, 2, 3)[0]
    states = matching.states(
        lambda x, level: (0.1 * x, x), x, torch.tensor([[0, 1], [1, 0]]), draws
    )
    assert states.start.tolist() == [1000, 500, 500, 1000]
    assert states.end.tolist() == [500, 0, 0, 500]
    torch.testing.assert_close(states.x[[0, 3]], x)
    torch.testing.assert_close(states.x[[1, 2]], 0.05 * x + 0.5 * x)


@pytest.mark.parametrize("times", [(), (0.0,), (1.0, 2.0, 0.0), (5.0, 5.0, 0.0), (5.0, 1.0)])
def test_grids_that_do_not_fall_to_zero(times: tuple[float, ...]) -> None:
    with pytest.raises(SparseError, match="fall to 0"):
        StepGrid(times=times)
