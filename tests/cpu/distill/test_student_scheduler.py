"""The student's scheduler: stock classes, a trailing grid, exact steps, clear refusals."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.kernels.errors import SparseError

FLOW = diffusers.FlowMatchEulerDiscreteScheduler
# A sigma of the stock scheduler is a float32 after half a dozen float64 operations.
FLOAT32 = 2.0**-23


SIGMAS = ("shift", "use_dynamic_shifting", "shift_terminal", "base_shift", "time_shift_type")


def trailing(shift: float, steps: int) -> np.ndarray:
    u = np.arange(steps, 0, -1) / steps
    return shift * u / (1 + (shift - 1) * u)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 8.0, 17.0])
def test_flow_grid_is_trailing(shift: float, steps: int) -> None:
    made = student_scheduler(FLOW(shift=shift), steps)
    made.set_timesteps(steps)
    assert type(made) is FLOW
    assert made.sigmas[0] == 1
    assert made.timesteps[0] == 1000
    np.testing.assert_allclose(made.sigmas[:-1].numpy(), trailing(shift, steps), atol=FLOAT32)
    assert made.sigmas[-1] == 0


def test_the_stock_grid_wastes_its_last_step() -> None:
    """What the student's configuration is for: the teacher's own 8 steps end near zero."""
    teacher = FLOW(shift=8.0)
    teacher.set_timesteps(8)
    student = student_scheduler(teacher, 8)
    student.set_timesteps(8)
    assert teacher.sigmas[-2] < 0.07
    assert student.sigmas[-2] == pytest.approx(8 / 15, abs=FLOAT32)
    assert teacher.config.shift == 8.0
    assert teacher.config.shift_terminal is None


def test_more_than_the_training_steps_can_space() -> None:
    made = student_scheduler(FLOW(shift=60.0), 50)
    made.set_timesteps(50)
    assert bool((made.sigmas[:-1] > made.sigmas[1:]).all())
    assert made.sigmas[-2] == pytest.approx(60 / 109, abs=FLOAT32)


@pytest.mark.parametrize(
    "build", [diffusers.UniPCMultistepScheduler, diffusers.DPMSolverMultistepScheduler]
)
def test_flow_sigmas_become_flow_match_euler(build: Any) -> None:
    teacher = build(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    made = student_scheduler(teacher, 4)
    made.set_timesteps(4)
    assert type(made) is FLOW
    np.testing.assert_allclose(made.sigmas[:-1].numpy(), trailing(5.0, 4), atol=FLOAT32)


def test_a_given_shift_replaces_the_teachers() -> None:
    made = student_scheduler(FLOW(shift=8.0), 4, shift=3)
    made.set_timesteps(4)
    np.testing.assert_allclose(made.sigmas[:-1].numpy(), trailing(3.0, 4), atol=FLOAT32)


def test_pipelines_that_give_sigmas_keep_the_configuration() -> None:
    made = student_scheduler(FLOW(shift=7.0), 4, own_sigmas=True)
    made.set_timesteps(sigmas=np.linspace(1, 1 / 4, 4))
    np.testing.assert_allclose(made.sigmas[:-1].numpy(), trailing(7.0, 4), atol=FLOAT32)
    dynamic = FLOW(use_dynamic_shifting=True, shift=3.0, shift_terminal=0.1)
    kept = student_scheduler(dynamic, 4)
    assert {name: kept.config[name] for name in SIGMAS} == {
        name: dynamic.config[name] for name in SIGMAS
    }


SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize(
    "teacher",
    [
        diffusers.DDIMScheduler(steps_offset=1, set_alpha_to_one=False, **SD),
        diffusers.PNDMScheduler(skip_prk_steps=True, **SD),
        diffusers.EulerDiscreteScheduler(**SD),
        diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, **SD
        ),
        diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
        diffusers.UniPCMultistepScheduler(trained_betas=[0.01] * 1000),
        diffusers.CogVideoXDPMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0
        ),
    ],
    ids=lambda teacher: type(teacher).__name__,
)
def test_tables_become_trailing_ddim(teacher: Any, tmp_path: Path) -> None:
    made = student_scheduler(teacher, 4)
    made.save_config(tmp_path)
    loaded = type(made).from_pretrained(tmp_path)
    loaded.set_timesteps(4)
    cogvideox = isinstance(teacher, diffusers.CogVideoXDPMScheduler)
    assert type(made) is (
        diffusers.CogVideoXDDIMScheduler if cogvideox else diffusers.DDIMScheduler
    )
    assert loaded.timesteps.tolist() == [999, 749, 499, 249]
    assert torch.equal(loaded.alphas_cumprod, made.alphas_cumprod)
    assert made.config.prediction_type == teacher.config.prediction_type
    # The last level may be 2**-24 in place of 0.
    assert (made.alphas_cumprod - teacher.alphas_cumprod).abs().max() < 1e-6


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("build", [diffusers.DDIMScheduler, diffusers.CogVideoXDDIMScheduler])
def test_a_ddim_step_goes_straight_to_its_end(build: Any, prediction: str) -> None:
    made = student_scheduler(build(prediction_type=prediction), 4)
    made.set_timesteps(4)
    clean, noise = 3 * torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
    levels = [*(made.alphas_cumprod[t].double() for t in made.timesteps), torch.tensor(1.0)]
    for start, end, t in zip(levels, levels[1:], made.timesteps, strict=False):
        x = start.sqrt() * clean + (1 - start).sqrt() * noise
        velocity = start.sqrt() * noise - (1 - start).sqrt() * clean
        output = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction]
        found = made.step(output, t, x).prev_sample
        wanted = end.sqrt() * clean + (1 - end).sqrt() * noise
        # Levels are float32 in part, and the first divides by sqrt(alphas_cumprod) > 0.006.
        torch.testing.assert_close(found, wanted, atol=3 * FLOAT32 / 0.006, rtol=0)


def test_an_euler_step_goes_straight_to_its_end() -> None:
    made = student_scheduler(FLOW(shift=8.0), 4)
    made.set_timesteps(4)
    clean, noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for start, end, t in zip(made.sigmas, made.sigmas[1:], made.timesteps, strict=False):
        x = (1 - start) * clean + start * noise
        found = made.step(noise - clean, t, x).prev_sample
        torch.testing.assert_close(found, (1 - end) * clean + end * noise, atol=1e-6, rtol=0)


def test_saved_and_loaded_the_grid_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    made = student_scheduler(FLOW(shift=8.0), 8)
    made.save_pretrained(tmp_path)
    loaded = FLOW.from_pretrained(tmp_path)
    for scheduler in (made, loaded):
        scheduler.set_timesteps(8)
    assert torch.equal(made.sigmas, loaded.sigmas)
    assert torch.equal(made.timesteps, loaded.timesteps)


def _schedulers(**config: Any) -> list[Any]:
    """One of every scheduler class of diffusers that these values make."""
    names = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    found = []
    for name in names:
        with suppress(ImportError, TypeError, ValueError, AttributeError):
            found.append(getattr(diffusers, name)(**config))
    return found


@pytest.mark.parametrize(
    "config", [{}, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_stock_scheduler_gives_a_trailing_grid_or_a_reason(config: dict[str, Any]) -> None:
    grids, reasons = {}, {}
    for scheduler in _schedulers(**config):
        try:
            made = student_scheduler(scheduler, 4)
        except SparseError as error:
            reasons[type(scheduler).__name__] = str(error)
        else:
            made.set_timesteps(4)
            grids[type(scheduler).__name__] = (type(made).__name__, made.timesteps.tolist())
    flow, table = [1000, 750, 500, 250], [999, 749, 499, 249]
    for name, (made, times) in grids.items():
        assert times == (flow if made.startswith("Flow") else table), name
    assert all(re.search(r"(cannot be sampled|Supported: )", words) for words in reasons.values())
    # The schedulers that the pipelines of supported models come with.
    least = {"UniPCMultistepScheduler", "DPMSolverMultistepScheduler"}
    if not config:
        least |= {"FlowMatchEulerDiscreteScheduler", "CogVideoXDDIMScheduler", "DDIMScheduler"}
        least |= {"CogVideoXDPMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"}
        assert {"EDMEulerScheduler", "LCMScheduler"} <= set(reasons)
    assert least <= set(grids)


@pytest.mark.parametrize(
    ("teacher", "options", "words"),
    [
        (diffusers.DDIMScheduler(), {"steps": 6}, "divisor of 1000: 5 or 8"),
        (diffusers.DDIMScheduler(), {"shift": 3.0}, "leave shift and own_sigmas out"),
        (diffusers.DDIMScheduler(prediction_type="other"), {}, "prediction_type='other'"),
        (
            diffusers.DDIMScheduler(rescale_betas_zero_snr=True),
            {},
            "says nothing of the clean sample",
        ),
        (
            diffusers.EulerDiscreteScheduler(
                timestep_type="continuous", prediction_type="v_prediction"
            ),
            {},
            "timestep_type='continuous'",
        ),
        (diffusers.LCMScheduler(), {}, "steps of LCMScheduler"),
        (diffusers.FlowMatchLCMScheduler(), {}, "steps of FlowMatchLCMScheduler"),
        (FLOW(invert_sigmas=True), {}, "invert_sigmas"),
        (FLOW(shift_terminal=0.5), {}, "Pass shift"),
        (FLOW(use_dynamic_shifting=True), {"shift": 3.0}, "Leave shift out"),
        (FLOW(use_karras_sigmas=True), {"own_sigmas": True}, "use_karras_sigmas"),
        (FLOW(), {"shift": 0}, "needs a positive number"),
        (FLOW(), {"shift": float("nan")}, "needs a positive number"),
        (FLOW(), {"steps": 0}, "from 1 to 1000"),
        (FLOW(), {"steps": 4.0}, "from 1 to 1000"),
        (diffusers.UniPCMultistepScheduler(use_flow_sigmas=True), {}, "prediction_type='epsilon'"),
    ],
)
def test_what_cannot_be_had_is_refused(teacher: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SparseError, match=words):
        student_scheduler(teacher, **{"steps": 4} | options)
