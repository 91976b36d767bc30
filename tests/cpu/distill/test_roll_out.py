"""The roll-out that is trained on is the run that users get, step by step."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_pipelines import FAMILIES
from torch import Tensor

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import TableNoise, noise_of
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.trajectory import roll_out
from sparsediff.models import denoisers

# Flow matching by the scheduler's sigmas and by the pipeline's own, packed latents, guidance embedded,
# v and epsilon of a table, a learned variance, time and velocity the other way round.
PIPELINES = {
    "wan": 4,
    "flux": 4,
    "flux_guided": 4,
    "hunyuan_video": 3,
    "ltx": 3,
    "lumina2": 3,
    "cogvideox": 4,
    "stable_diffusion": 4,
    "sdxl": 4,
    "latte": 2,
}


def built(name: str) -> Any:
    if name == "flux_guided":
        pipe = FAMILIES["flux"].build()
        torch.manual_seed(1)
        config = dict(pipe.transformer.config) | {"guidance_embeds": True}
        pipe.transformer = diffusers.FluxTransformer2DModel.from_config(config).eval()
        return pipe
    pipe = FAMILIES[name].build()
    if name == "cogvideox":
        config = dict(pipe.scheduler.config) | {"prediction_type": "v_prediction"}
        pipe.scheduler = diffusers.CogVideoXDDIMScheduler.from_config(config)
    return pipe


def call_of(name: str, **changes: Any) -> dict[str, Any]:
    call = dict(FAMILIES[name.removesuffix("_guided")].call)
    return call | ({"guidance_scale": 3.5} if name == "flux_guided" else {}) | changes


class Watched:
    """What a pipeline's own run gave: first noise, the model's timesteps, final latents."""

    def __init__(self, pipe: Any, call: dict[str, Any], steps: int) -> None:
        self.samples: list[Tensor] = []
        self.times: list[float] = []
        original = pipe.scheduler.step

        def step(model_output: Tensor, timestep: Tensor, sample: Tensor, *a: Any, **k: Any) -> Any:
            self.samples.append(sample.clone())
            self.times.append(float(timestep))
            result = original(model_output, timestep, sample, *a, **k)
            self.end = result[0].clone()
            return result

        pipe.scheduler.step = step
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(3)
        pipe(generator=generator, output_type="latent", num_inference_steps=steps, **call)
        del pipe.scheduler.step


@pytest.mark.parametrize("name", PIPELINES)
def test_roll_out_equals_the_pipeline(name: str) -> None:
    steps, pipe = PIPELINES[name], built(name)
    call = call_of(name)
    if name != "flux_guided" and "guidance_scale" in call and name != "hunyuan_video":
        call["guidance_scale"] = 1.0  # the student needs no second prediction
    prompt = call.pop("prompt")
    (model,) = denoisers(pipe).values()
    recorder = ConditionRecorder(pipe, model, call, steps=steps)
    pipe.scheduler = student_scheduler(pipe.scheduler, steps, own_sigmas=recorder.own_sigmas)
    conditions = recorder.record(prompt)
    assert conditions.negative is None
    levels = noise_of(recorder.scheduler)
    grid = StepGrid.of(recorder.scheduler, levels)
    watched = Watched(pipe, call | {"prompt": prompt}, steps)

    denoiser = Denoiser(model=model, inputs=recorder.inputs, levels=levels)
    told: list[float] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(
            float(kwargs[recorder.inputs.time_name].flatten()[0])
        ),
        with_kwargs=True,
    )
    states = roll_out(lambda x, at: denoiser(x, at, conditions), levels, grid, watched.samples[0])

    assert len(states) == len(watched.samples) == steps == grid.steps
    scale, offset = recorder.inputs.time_scale, recorder.inputs.time_offset
    assert told == pytest.approx([scale * time + offset for time in watched.times], rel=1e-6)
    # Each step rounds to a part in 2**23 of x, and epsilon at the noisiest is multiplied by
    # sigma / alpha, 15 with Stable Diffusion's levels and 150 with diffusers' default ones.
    gain = float(levels.gain(levels.at(torch.tensor([grid.times[0]])))[0])
    close = 1e-5 * max(1.0, gain)
    for state, sample in zip(states, watched.samples, strict=True):
        size = float(sample.abs().max())
        torch.testing.assert_close(state.x, sample, atol=close * size, rtol=0)
    end = float(watched.end.abs().max())
    torch.testing.assert_close(states[-1].clean, watched.end, atol=close * end, rtol=0)
    assert float((watched.end - watched.samples[0]).abs().max()) > 100 * close * end


@pytest.mark.parametrize("name", ["wan", "flux", "cogvideox"])
def test_any_other_number_of_steps_visits_other_levels(name: str) -> None:
    """What the test above would not see if grids did not depend on anything."""
    pipe = built(name)
    call = call_of(name, guidance_scale=1.0)
    pipe.scheduler = student_scheduler(pipe.scheduler, 4, own_sigmas=name == "flux")
    assert Watched(pipe, call, 4).times != Watched(pipe, call, 3).times[:4]


def test_churn_keeps_the_level_of_noise() -> None:
    """Fresh noise in part, but as much in all: variances of what is not clean are the same."""
    pipe = built("wan")
    pipe.scheduler = student_scheduler(pipe.scheduler, 2)
    pipe.scheduler.set_timesteps(2)
    levels = noise_of(pipe.scheduler)
    grid = StepGrid.of(pipe.scheduler, levels)
    torch.manual_seed(0)
    x = torch.randn(1, 50_000)

    class Fresh:
        def normal(self, x: Tensor) -> Tensor:
            return torch.randn_like(x)

    draws: Any = Fresh()
    churned = roll_out(
        lambda x, at: (torch.zeros_like(x), x), levels, grid, x, churn=0.6, draws=draws
    )[1]
    sigma = float(levels.at(churned.start).sigma)
    assert float(churned.x.std()) == pytest.approx(sigma, rel=0.02)  # 1 / sqrt(2 n) is 0.003
    overlap = float((churned.x * x).mean() / sigma)
    assert overlap == pytest.approx(0.8, abs=0.02)


def test_table_levels_are_the_schedulers() -> None:
    scheduler = diffusers.DDIMScheduler(set_alpha_to_one=True)
    levels = noise_of(scheduler)
    assert isinstance(levels, TableNoise)
    level = levels.at(torch.tensor([0.0, 1.0, 1000.0]))
    torch.testing.assert_close(level.alpha[0], torch.tensor(1.0))
    torch.testing.assert_close(level.alpha[1:] ** 2, scheduler.alphas_cumprod[[0, 999]])
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(3))
    assert level.timestep.tolist() == [0, 0, 999]
