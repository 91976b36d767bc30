"""Steps by every kind of scheduler: counting, with timesteps only, with two evaluations in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from seen_calls import SeenCalls
from tiny_pipelines import FAMILIES
from tiny_pipelines.parts import picture

import sparsediff

OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25, "gate": False}
STEPS = 4
PICTURES = [picture(64, 64)] * 9
HALF: dict[str, Any] = {"strength": 0.5}


def made(name: str) -> Callable[[Any], Any]:
    """A scheduler with the settings of the one it replaces, where it has them."""
    return lambda old: getattr(diffusers, name).from_config(old.config)


def unipc(_: Any) -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )


@pytest.mark.parametrize(
    ("family", "scheduler", "evaluations"),
    [
        pytest.param("wan", unipc, STEPS, id="unipc"),
        pytest.param("wan", made("FlowMatchHeunDiscreteScheduler"), 2 * STEPS - 1, id="flow heun"),
        pytest.param("cogvideox", made("CogVideoXDDIMScheduler"), STEPS, id="cogvideox ddim"),
        pytest.param("cogvideox", made("CogVideoXDPMScheduler"), STEPS, id="cogvideox dpm"),
        pytest.param("cogvideox", made("HeunDiscreteScheduler"), 2 * STEPS - 1, id="heun"),
        pytest.param("sdxl", made("DDIMScheduler"), STEPS, id="ddim"),
        pytest.param("sdxl", made("EulerAncestralDiscreteScheduler"), STEPS, id="euler a"),
        pytest.param("sdxl", made("PNDMScheduler"), STEPS + 9, id="pndm repeats timesteps"),
        pytest.param("pixart_alpha", made("DPMSolverSinglestepScheduler"), STEPS, id="dpm single"),
    ],
)
def test_schedulers(family: str, scheduler: Callable[[Any], Any], evaluations: int) -> None:
    """A step is one evaluation of the denoiser; a second-order scheduler makes two of most."""
    pipe = FAMILIES[family].build()
    pipe.scheduler = scheduler(pipe.scheduler)
    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    branches = 2 if FAMILIES[family].guidance == "two calls" else 1
    for run in (1, 2):
        seen.clear()
        FAMILIES[family].run(pipe, steps=STEPS)
        dense = sparsediff.search.Schedule(warmup=0.25).dense_steps(evaluations)
        assert [step for step, _ in seen.forwards[::branches]] == list(range(evaluations))
        assert len({branch for _, branch in seen.forwards}) == branches
        assert seen.totals == {evaluations}
        assert seen.dense_steps == list(range(dense))
        assert seen.sparse_steps == list(range(dense, evaluations))
        assert {call.run for call in seen.calls} == {run}
    assert seen.session.report().fallbacks == {}


@pytest.mark.parametrize(
    ("family", "pipeline", "call", "scheduler"),
    [
        pytest.param("wan", "WanVideoToVideoPipeline", {"video": PICTURES}, None, id="wan"),
        pytest.param("wan", "WanVideoToVideoPipeline", {"video": PICTURES}, unipc, id="wan unipc"),
        pytest.param(
            "cogvideox", "CogVideoXVideoToVideoPipeline", {"video": PICTURES}, None, id="cogvideox"
        ),
        pytest.param(
            "flux", "FluxImg2ImgPipeline", {"image": picture(24, 24)}, None, id="begin index"
        ),
        pytest.param(
            "sdxl",
            "StableDiffusionXLImg2ImgPipeline",
            {"image": picture(64, 64)},
            made("DDIMScheduler"),
            id="sdxl ddim",
        ),
    ],
)
def test_strength(
    family: str, pipeline: str, call: dict[str, Any], scheduler: Callable[[Any], Any] | None
) -> None:
    """Half of the timesteps are left out; some pipelines tell the scheduler and some do not."""
    source = FAMILIES[family].build()
    pipe = getattr(diffusers, pipeline).from_pipe(source)
    if scheduler is not None:
        pipe.scheduler = scheduler(pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    given = {key: value for key, value in FAMILIES[family].call.items() if key != "num_frames"}
    for _ in range(2):
        seen.clear()
        pipe(**given | call | HALF, num_inference_steps=2 * STEPS, output_type="latent")
        assert sorted({step for step, _ in seen.forwards}) == [0, 1, 2, 3]
        assert [step for step, _ in seen.forwards] == sorted(step for step, _ in seen.forwards)
        assert (seen.totals, seen.dense_steps, seen.sparse_steps) == ({4}, [0], [1, 2, 3])
    assert seen.session.report().fallbacks == {}


@pytest.mark.parametrize(
    ("family", "given"),
    [
        pytest.param("flux", {"sigmas": [1.0, 0.9, 0.4, 0.2, 0.1]}, id="sigmas"),
        pytest.param("sdxl", {"timesteps": [999, 900, 400, 200, 100]}, id="timesteps"),
        pytest.param("cogvideox", {"timesteps": [999, 800, 600, 400, 200]}, id="without index"),
    ],
)
def test_steps_given_by_the_user(family: str, given: dict[str, Any]) -> None:
    pipe = FAMILIES[family].build()
    if family == "cogvideox":
        pipe.scheduler = GivenTimesteps.from_config(pipe.scheduler.config)
    seen = SeenCalls(pipe.enable_sparse_attention(**OPTIONS))
    FAMILIES[family].run(pipe, steps=50, **given)
    assert [step for step, _ in seen.forwards] == [0, 1, 2, 3, 4]
    assert (seen.totals, seen.dense_steps) == ({5}, [0])


class GivenTimesteps(diffusers.CogVideoXDDIMScheduler):
    """One that takes the user's timesteps and counts nothing."""

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None
    ) -> None:
        super().set_timesteps(len(timesteps), device)
        self.timesteps = torch.tensor(timesteps)


def test_a_denoiser_enabled_without_its_pipeline() -> None:
    """It follows what the pipeline says and the noise level, in whatever unit; nobody knows a total."""
    for family in ("ltx", "cogvideox", "lumina2", "flux"):
        pipe = FAMILIES[family].build()
        seen = SeenCalls(pipe.transformer.enable_sparse_attention(**OPTIONS))
        for run in (1, 2):
            seen.clear()
            FAMILIES[family].run(pipe, steps=STEPS)
            assert sorted({step for step, _ in seen.forwards}) == list(range(STEPS)), family
            assert {call.run for call in seen.calls} == {run}, family
        assert seen.totals == {None}


def test_enabled_in_the_middle_of_a_run() -> None:
    pipe = FAMILIES["wan"].build()
    seen: list[SeenCalls] = []

    def enable(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            seen.append(SeenCalls(pipe.enable_sparse_attention(**OPTIONS)))
        return tensors

    FAMILIES["wan"].run(pipe, steps=STEPS, callback_on_step_end=enable)
    assert {step for step, _ in seen[0].forwards} == {2, 3}
    assert seen[0].dense_steps == [], "a quarter of the run is over"
    assert seen[0].totals == {STEPS}
