"""Progress against the ways in which pipelines count: every source of the step, alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from sparsediff.progress import Context, Progress


@dataclass
class Scheduler:
    """A scheduler's outside: timesteps, and perhaps a step index."""

    timesteps: torch.Tensor = field(default_factory=lambda: torch.linspace(1000, 250, 4))
    num_inference_steps: int | None = 4
    begin_index: int | None = None


@dataclass
class CountingScheduler(Scheduler):
    step_index: int | None = None


def forward(progress: Progress, t: float, layers: int = 2, eager: bool = True) -> tuple[int, str]:
    """One forward of a model; returns (step index, branch)."""
    if eager:
        progress.forward_begins()
    for layer in range(layers):
        progress.at_layer(layer, torch.tensor([t, t]), compiled=not eager)
    return progress.step.index, progress.branch


@pytest.mark.parametrize("eager", [True, False], ids=["hook", "compiled"])
@pytest.mark.parametrize("counts", [True, False], ids=["step_index", "timestep only"])
def test_two_calls_per_step_over_two_runs(eager: bool, counts: bool) -> None:
    scheduler = CountingScheduler() if counts else Scheduler()
    progress = Progress(lambda: scheduler)
    for run in (1, 2):
        scheduler.timesteps = scheduler.timesteps.clone()
        if isinstance(scheduler, CountingScheduler):
            scheduler.step_index = None
        for index, t in enumerate(scheduler.timesteps.tolist()):
            seen = [forward(progress, t, eager=eager) for _ in range(2)]
            assert seen == [(index, "0"), (index, "1")]
            assert (progress.run, progress.step.total) == (run, 4)
            assert progress.step.progress == index / 4
            if isinstance(scheduler, CountingScheduler):
                scheduler.step_index = index + 1


def test_image_to_image_counts_from_where_it_begins() -> None:
    scheduler = CountingScheduler(begin_index=2, step_index=2)
    progress = Progress(lambda: scheduler)
    assert forward(progress, 500.0) == (0, "0")
    assert progress.step.total == 2
    scheduler.step_index = 3
    assert forward(progress, 250.0) == (1, "0")
    assert progress.step.progress == 0.5


def test_context_comes_first() -> None:
    scheduler = CountingScheduler(step_index=3)
    progress = Progress(lambda: scheduler)
    progress.context = Context(name="uncond", step_index=1)
    assert forward(progress, 900.0) == (1, "uncond")
    assert progress.step.total == 4
    progress.context = Context(name="cond", step_index=5, total=10)
    assert forward(progress, 900.0) == (5, "cond")
    assert progress.step.progress == 0.5


def test_a_skipped_layer_does_not_split_a_forward() -> None:
    """Caches skip layers; the first layer seen again, or the hook, opens a forward."""
    progress = Progress()
    forward(progress, 900.0, layers=5)
    forward(progress, 600.0, layers=1)
    assert progress.step.index == 1
    progress.at_layer(4, torch.tensor([600.0]))
    assert (progress.step.index, progress.branch) == (1, "0")


def test_bare_model() -> None:
    progress = Progress()
    assert [forward(progress, t)[0] for t in (800.0, 600.0, 400.0)] == [0, 1, 2]
    assert progress.step.total is None
    assert progress.step.progress == 0.5
    forward(progress, 800.0)
    assert (progress.run, progress.step.index) == (2, 0)


def test_branches_of_a_repeated_timestep_are_bounded() -> None:
    progress = Progress()
    assert len({forward(progress, 500.0)[1] for _ in range(50)}) == 4


def test_per_token_timesteps() -> None:
    """Wan 2.2 TI2V: conditioned tokens stay at zero, the others tell the step."""
    progress = Progress()
    for index, t in enumerate((900.0, 500.0)):
        progress.forward_begins()
        progress.at_layer(0, torch.tensor([[0.0, 0.0, t, t]]))
        assert progress.step.index == index


def test_end_of_run_opens_a_new_one() -> None:
    scheduler = CountingScheduler()
    progress = Progress(lambda: scheduler)
    forward(progress, 1000.0)
    progress.run_ends()
    scheduler.timesteps = scheduler.timesteps.clone()
    forward(progress, 1000.0)
    assert (progress.run, progress.branch) == (2, "0")


@pytest.mark.parametrize("ended", [True, False])
def test_a_scheduler_that_is_not_in_use_is_not_followed(ended: bool) -> None:
    """Another pipeline calls the model: this scheduler stays where its own run left it."""
    scheduler = CountingScheduler()
    progress = Progress(lambda: scheduler)
    forward(progress, 1000.0)
    scheduler.step_index = 4
    if ended:
        progress.run_ends()
    seen = [forward(progress, t) for t in (900.0, 500.0, 100.0)]
    assert [index for index, _ in seen][-3:] == ([0, 1, 2] if ended else [1, 2, 3])
    assert progress.step.total is None


def test_a_scheduler_that_never_started_is_not_followed() -> None:
    scheduler = CountingScheduler(num_inference_steps=None)
    progress = Progress(lambda: scheduler)
    assert [forward(progress, t)[0] for t in (900.0, 500.0)] == [0, 1]
    assert progress.step.total is None


@pytest.mark.parametrize(
    ("noise", "begin"),
    [
        pytest.param(500.0, 2, id="left out"),
        pytest.param(501.0, 2, id="rounded to bfloat16"),
        pytest.param(0.5, 0, id="in another unit"),
        pytest.param(1000.0, 0, id="all of them"),
    ],
)
@pytest.mark.parametrize("counts", [True, False], ids=["step_index", "timestep only"])
def test_video_to_video_leaves_out_timesteps(noise: float, begin: int, counts: bool) -> None:
    """Nobody tells the scheduler, which finds its step by the timestep after the first forward."""
    scheduler = CountingScheduler() if counts else Scheduler()
    progress = Progress(lambda: scheduler)
    assert forward(progress, noise) == (0, "0")
    assert progress.step.total == 4 - begin
    if isinstance(scheduler, CountingScheduler):
        scheduler.step_index = begin + 1
    assert forward(progress, noise / 2) == (1, "0")


def test_repeated_timesteps_of_a_scheduler_that_counts_otherwise() -> None:
    scheduler = Scheduler(timesteps=torch.tensor([1000.0, 500.0, 500.0, 250.0]))
    progress = Progress(lambda: scheduler)
    seen = []
    for count, t in enumerate(scheduler.timesteps.tolist()):
        scheduler.counter = count  # type: ignore[attr-defined]
        seen.append(forward(progress, t))
    assert seen == [(index, "0") for index in range(4)]


def test_the_same_timesteps_once_more_are_a_run() -> None:
    """A long video in pieces: the scheduler's timesteps are not set again."""
    scheduler = Scheduler()
    progress = Progress(lambda: scheduler)
    for run in (1, 2):
        assert [forward(progress, t)[0] for t in (1000.0, 750.0, 500.0, 250.0)] == [0, 1, 2, 3]
        assert progress.run == run


def test_frames_that_start_late_move_the_step() -> None:
    progress = Progress()
    for index, late in enumerate((999.0, 900.0, 500.0)):
        progress.forward_begins()
        progress.at_layer(0, torch.tensor([[late, 999.0]]))
        assert (progress.run, progress.step.index) == (1, index)


def test_a_spent_scheduler_stays_spent_while_another_pipeline_runs() -> None:
    scheduler = Scheduler()
    progress = Progress(lambda: scheduler)
    forward(progress, 1000.0)
    progress.run_ends()
    for _ in range(2):
        forward(progress, 900.0)
        assert progress.step.total is None
        progress.run_ends()
