"""What a pipeline tells its model: recorded for every family, or refused with the reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_pipelines import FAMILIES, wan
from torch import Tensor

from sparsediff.distill.noise import Level, noise_of
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.recording.tree import leaves
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.tdm_loss import guided
from sparsediff.kernels.errors import SparseError
from sparsediff.models import denoisers

# "plain": the scheduler gets negative + scale (positive - negative); "one": a model with guidance in
# it, or without; "changed": the pipeline changes the guided prediction further, or
# means positive + scale (positive - negative), as Cosmos 2.5 does.
SUPPORTED = {
    "wan": "plain",
    "skyreels": "plain",
    "ltx": "plain",
    "cogvideox": "plain",
    "cogvideox15": "plain",
    "hunyuan_video": "one",
    "mochi": "plain",
    "cosmos25": "changed",
    "allegro": "plain",
    "easyanimate": "plain",
    "kandinsky5": "plain",
    "latte": "plain",
    "flux": "one",
    "flux2": "one",
    "chroma": "plain",
    "qwen_image": "changed",
    "sd3": "plain",
    "lumina2": "changed",
    "pixart_alpha": "plain",
    "pixart_sigma": "plain",
    "auraflow": "plain",
    "cogview4": "plain",
    "sdxl": "plain",
    "stable_diffusion": "plain",
    "animatediff": "plain",
}
REFUSED = {
    "wan_i2v": "given image",
    "wan_ti2v": "given image",
    "wan_animate": "given image",
    "chronoedit": "given image",
    "ltx_condition": "given conditions",
    "ltx2": "video and sound",
    "ltx2_condition": "given conditions",
    "cogvideox_i2v": "given image",
    "hunyuan_i2v": "given image",
    "framepack": "given image",
    "cosmos2": "given image",
    "flux_kontext": "given image",
    "wan_vace": "cannot make two",
    "skyreels_forcing": "input is the noise",
    "hunyuan_video15": "2 times a step without guidance",
    "cosmos": "0 times a step",
    "hidream": "batch in the first dimension",
}


def recorder_of(name: str, pipe: Any, steps: int = 2, **changes: Any) -> ConditionRecorder:
    """The recorder, with the student's scheduler in the pipeline as `Setup` puts it."""
    call = {key: value for key, value in FAMILIES[name].call.items() if key != "prompt"} | changes
    (model,) = denoisers(pipe).values()
    recorder = ConditionRecorder(pipe, model, call, steps=steps)
    pipe.scheduler = student_scheduler(pipe.scheduler, steps, own_sigmas=recorder.own_sigmas)
    return recorder


def first_step(name: str, pipe: Any, steps: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(sample, timestep, output) that the pipeline itself gives its scheduler first."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    original = pipe.scheduler.step

    def spy(model_output: Tensor, timestep: Tensor, sample: Tensor, *a: Any, **k: Any) -> Any:
        seen.append((sample.clone(), timestep.clone(), model_output.clone()))
        return original(model_output, timestep, sample, *a, **k)

    pipe.scheduler.step = spy
    FAMILIES[name].run(pipe, steps=steps)
    del pipe.scheduler.step
    return seen[0]


def output_of(
    recorder: ConditionRecorder, conditions: Conditions, x: Tensor, time: Tensor
) -> Tensor:
    """What the model gives the scheduler, told of the recorded conditions."""

    class Plain:
        def split(self, x: Tensor, output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            return output.float(), output

    levels: Any = Plain()
    denoiser = Denoiser(model=recorder.model, inputs=recorder.inputs, levels=levels)
    level = Level(alpha=torch.ones(1), sigma=torch.ones(1), timestep=time.reshape(1))
    with torch.no_grad():
        positive = denoiser(x, level, conditions)[0]
        if conditions.negative is None:
            return positive
        negative = denoiser(x, level, conditions, negative=True)[0]
    return guided(positive, negative, recorder.guidance or 1.0)


@pytest.mark.parametrize("name", SUPPORTED)
def test_recorded_conditions_predict_as_the_pipeline(name: str) -> None:
    """The one and only input that the model's prediction lacks is what the pipeline told it."""
    kind = SUPPORTED[name]
    pipe = FAMILIES[name].build()
    recorder = recorder_of(name, pipe)
    conditions = recorder.record(FAMILIES[name].call["prompt"])
    assert (conditions.negative is None) == (kind == "one")
    x, time, expected = first_step(name, pipe)
    found = output_of(recorder, conditions, x, time)
    # Batches of one and of two sum in other orders; guidance of at most 6 multiplies that.
    close = torch.allclose(found, expected.float(), atol=1e-4 * float(expected.abs().max()))
    assert close == (kind != "changed")
    if conditions.negative is not None:  # the sides are not the other way round, nor equal
        swapped = Conditions(
            positive=conditions.negative, negative=conditions.positive, batched=conditions.batched
        )
        assert not torch.allclose(output_of(recorder, swapped, x, time), found, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name, kind in SUPPORTED.items() if kind != "one"])
def test_only_plain_guidance_is_for_a_student_run_with_it(name: str) -> None:
    """Pipelines whose guidance is of their own would run another student than was trained."""
    recorder = recorder_of(name, FAMILIES[name].build())
    if SUPPORTED[name] == "plain":
        recorder.check_guidance(3.0)
        return
    with pytest.raises(SparseError, match=r"does not guide by negative \+ 3 \(positive"):
        recorder.check_guidance(3.0)


@pytest.mark.parametrize(("name", "changes"), [("wan", {"guidance_scale": 1.0}), ("latte", None)])
def test_a_student_with_guidance_needs_a_teacher_with_it(
    name: str, changes: dict[str, Any] | None
) -> None:
    recorder = recorder_of(name, FAMILIES[name].build(), **changes or {})
    if changes is None:
        recorder.guidance_name, recorder.guidance = "", None  # a pipeline that knows of none
    with pytest.raises(SparseError, match=r"student_guidance=3: .*needs a teacher with it"):
        recorder.check_guidance(3.0)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    pipe = FAMILIES[name].build()
    scheduler, bar = pipe.scheduler, vars(pipe).get("_progress_bar_config")
    with pytest.raises(SparseError, match=REFUSED[name]):
        recorder_of(name, pipe)
    untouched(pipe, scheduler, bar)


def test_the_table_names_every_family() -> None:
    # wan22 has two models, which Setup refuses before anything is recorded.
    assert {*SUPPORTED, *REFUSED, "wan22"} == set(FAMILIES)


def untouched(pipe: Any, scheduler: Any, bar: Any) -> None:
    (model,) = denoisers(pipe).values()
    assert pipe.scheduler is scheduler
    assert "step" not in vars(scheduler)
    assert "set_timesteps" not in vars(scheduler)
    assert "forward" not in vars(model)
    assert vars(pipe).get("_progress_bar_config") == bar


@pytest.mark.parametrize("bar", [None, {"desc": "mine", "disable": True}])
def test_the_pipeline_is_left_as_it_was(bar: dict[str, Any] | None) -> None:
    pipe = wan()
    if bar is not None:
        pipe.set_progress_bar_config(**bar)
    scheduler, before = pipe.scheduler, copy.deepcopy(vars(pipe.scheduler))
    random = torch.get_rng_state()
    call = {key: value for key, value in FAMILIES["wan"].call.items() if key != "prompt"}
    recorder = ConditionRecorder(pipe, pipe.transformer, call, steps=2)
    recorder.record("a red circle")
    untouched(pipe, scheduler, bar)
    assert str(vars(scheduler)) == str(before)
    assert torch.equal(torch.get_rng_state(), random)
    recorder.call["height"] = 63  # Wan needs a multiple of 16
    with pytest.raises(SparseError, match=r"height.*63") as caught:
        recorder.record("a red circle")
    assert isinstance(caught.value.__cause__, ValueError)
    untouched(pipe, scheduler, bar)


def test_the_own_forward_of_a_model_comes_back() -> None:
    """As offloading hooks have it: a forward in the instance."""
    pipe = wan()
    own = pipe.transformer.forward = lambda *args, **kwargs: None
    recorder_of("wan", pipe).record("a")
    assert vars(pipe.transformer)["forward"] is own


def test_prompts_share_no_tensors() -> None:
    recorder = recorder_of("cogvideox", FAMILIES["cogvideox"].build())
    found = [recorder.record(prompt) for prompt in ("a red circle", "a blue square")]
    places = [
        x.untyped_storage().data_ptr()
        for one in found
        for side in (one.positive, one.negative)
        for x in leaves(side).values()
    ]
    assert len(set(places)) == len(places) > 2
    assert all(x.is_contiguous() for x in leaves(found[0].positive).values())


def test_guidance_is_asked_for_by_the_pipelines_own_name() -> None:
    pipe = FAMILIES["qwen_image"].build()
    assert recorder_of("qwen_image", pipe, true_cfg_scale=5.0).guidance == 5.0
    hunyuan = recorder_of("hunyuan_video", FAMILIES["hunyuan_video"].build())
    assert hunyuan.guidance_name == "guidance_scale"  # embedded: one prediction
    pipe = wan()
    recorder = ConditionRecorder(pipe, pipe.transformer, {"height": 32, "width": 32}, steps=2)
    assert recorder.guidance == 5.0  # WanPipeline's default
    given = ConditionRecorder(
        pipe, pipe.transformer, {"height": 32, "width": 32}, steps=2, guidance=3.0
    )
    assert given.guidance == given.call["guidance_scale"] == 3.0


def test_a_timestep_for_every_token_is_told_when_all_are_equal() -> None:
    """Wan 2.2 5B from text alone."""
    pipe = wan()
    pipe.register_to_config(expand_timesteps=True)
    recorder = recorder_of("wan", pipe)
    assert recorder.inputs.time_shape == (48,)
    conditions = recorder.record(FAMILIES["wan"].call["prompt"])
    x, time, expected = first_step("wan", pipe)
    torch.testing.assert_close(
        output_of(recorder, conditions, x, time), expected, atol=1e-5, rtol=1e-4
    )


def test_a_scaled_input_is_refused() -> None:
    """Euler's UNets see x / sqrt(1 + sigma²); the student's DDIM does not scale."""
    pipe = FAMILIES["sdxl"].build()
    recorder = recorder_of("sdxl", pipe)
    pipe.scheduler = FAMILIES["sdxl"].build().scheduler
    with pytest.raises(SparseError, match="scales the noise"):
        recorder.record("a red circle")


def test_a_prompt_equal_to_the_negative_one() -> None:
    recorder = recorder_of("wan", wan())
    with pytest.raises(SparseError, match="another prompt"):
        recorder.record("blurry")


def test_levels_of_every_supported_student() -> None:
    for name in ("wan", "cogvideox", "stable_diffusion"):
        pipe = FAMILIES[name].build()
        recorder_of(name, pipe)
        levels = noise_of(pipe.scheduler)
        level = levels.at(torch.tensor([float(levels.steps)]))
        assert float(level.sigma) == pytest.approx(1.0, abs=3e-3)
