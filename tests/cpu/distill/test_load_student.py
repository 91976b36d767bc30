"""A student in diffusers' own hands and in ours: the same latents, the card's grid, exact undo."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from tiny_pipelines import FAMILIES, Family
from tiny_student import STEPS, add_student, card_of, component_of, make_student

import sparsediff
from sparsediff.distill.student.student_files import save_student
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.kernels.errors import AlreadyEnabledError, PlanError, PlanMismatchError, SparseError
from sparsediff.plans import Fingerprint

METHOD = sparsediff.Window(density=0.4, block_size=16)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A saved student, the pipeline it was made of, and what it generates with the adapter in place."""

    family: Family
    pipe: Any
    folder: Path
    card: Any
    scheduler: Any  # the teacher's
    dense: torch.Tensor  # of the teacher
    student: torch.Tensor
    state: dict[str, torch.Tensor]

    @property
    def model(self) -> Any:
        return getattr(self.pipe, component_of(self.pipe))

    def run(self) -> torch.Tensor:
        return run(self.family, self.pipe)


# Pipelines that give their scheduler sigmas.
OWN_SIGMAS = ("flux", "hunyuan_video15")


def run(family: Family, pipe: Any) -> torch.Tensor:
    unguided = {"guidance_scale": 1.0} if "guidance_scale" in family.call else {}
    return family.run(pipe, steps=STEPS, **unguided)


def case_of(name: str, folder: Path) -> Case:
    family = FAMILIES[name]
    pipe = family.build()
    model = getattr(pipe, component_of(pipe))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    teacher = pipe.scheduler
    dense = run(family, pipe)
    card = make_student(pipe, folder, method=METHOD, own_sigmas=name in OWN_SIGMAS)
    student = run(family, pipe)
    model.unload_lora()
    pipe.scheduler = teacher
    return Case(
        family=family,
        pipe=pipe,
        folder=folder,
        card=card,
        scheduler=teacher,
        dense=dense,
        student=student,
        state=state,
    )


@pytest.fixture(scope="module", params=["wan", "cogvideox", "flux", "stable_diffusion"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(request.param, tmp_path_factory.mktemp("student") / request.param)


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of("wan", tmp_path_factory.mktemp("student") / "wan")


@pytest.fixture(autouse=True)
def _unload(request: pytest.FixtureRequest) -> Any:
    yield
    for name in {"case", "wan"} & set(request.fixturenames):
        found = request.getfixturevalue(name)
        sparsediff.unload_student(found.pipe)
        found.model.load_state_dict(found.state)  # fused weights come back rounded


def test_plain_diffusers_loads_it(case: Case) -> None:
    pipe = case.pipe
    made = case.folder / "scheduler" / "scheduler_config.json"
    flow = "FlowMatchEuler" in made.read_text()
    kind = diffusers.FlowMatchEulerDiscreteScheduler if flow else type(case.scheduler)
    pipe.load_lora_weights(str(case.folder))
    pipe.scheduler = kind.from_pretrained(case.folder, subfolder="scheduler")
    try:
        found = case.run()
    finally:
        pipe.unload_lora_weights()
        visited, pipe.scheduler = pipe.scheduler, case.scheduler
    assert torch.equal(found, case.student)
    assert not torch.equal(found, case.dense)
    assert tuple(map(float, visited.timesteps)) == case.card.timesteps


def test_loaded_it_generates_the_same_on_its_grid(case: Case) -> None:
    assert sparsediff.load_student(case.pipe, case.folder, sparse=False) is None
    assert torch.equal(case.run(), case.student)
    assert tuple(map(float, case.pipe.scheduler.timesteps)) == case.card.timesteps
    if hasattr(case.pipe.scheduler, "sigmas"):
        assert tuple(map(float, case.pipe.scheduler.sigmas)) == case.card.sigmas


def test_unloaded_everything_is_as_it_was(case: Case) -> None:
    sparsediff.load_student(case.pipe, case.folder)
    sparsediff.unload_student(case.pipe)
    state = case.model.state_dict()
    assert list(state) == list(case.state)
    assert all(torch.equal(state[key], value) for key, value in case.state.items())
    assert case.pipe.scheduler is case.scheduler
    assert torch.equal(case.run(), case.dense)
    assert not getattr(case.model, "peft_config", None)


@pytest.mark.parametrize("fuse", [False, True])
def test_its_attention_is_sparse(wan: Case, fuse: bool) -> None:
    session = sparsediff.load_student(wan.pipe, str(wan.folder), gate=False, fuse=fuse)
    assert session is not None
    assert session.method == METHOD
    found = wan.run()
    assert session.report().sparse_calls == wan.family.layers * STEPS
    sparsediff.unload_student(wan.pipe)
    assert not session.enabled
    session = sparsediff.load_student(wan.pipe, wan.folder, gate=False, density=1.0)
    assert session is not None
    assert session.method.density == 1.0
    full = wan.run()
    assert session.report().sparse_calls > 0
    assert torch.dist(full, wan.student) < torch.dist(found, wan.student)


def test_fused_it_generates_the_same_up_to_rounding(wan: Case) -> None:
    sparsediff.load_student(wan.pipe, wan.folder, sparse=False, fuse=True)
    merged = [m for m in wan.model.modules() if getattr(m, "merged", False) is True]
    assert len(merged) == 4 * 2 * wan.family.layers  # self- and cross-attention
    # Weights of order 1 are rounded once to float32; four steps of three layers amplify that.
    torch.testing.assert_close(wan.run(), wan.student, atol=1e-3, rtol=1e-3)
    sparsediff.unload_student(wan.pipe)
    state = wan.model.state_dict()
    for key, value in wan.state.items():
        # Added and taken off: two roundings of values below 8.
        torch.testing.assert_close(state[key], value, atol=8 * 2.0**-23, rtol=0)


def test_another_adapter_stays_and_keeps_its_scale(wan: Case) -> None:
    add_student(wan.model)
    try:
        wan.model.set_adapters(["student"], weights=[0.5])
        before = wan.run()
        sparsediff.load_student(wan.pipe, wan.folder, sparse=False)
        assert wan.model.active_adapters() == ["student", "sparsediff-student"]
        with pytest.raises(SparseError, match="student already"):
            sparsediff.load_student(wan.pipe, wan.folder)
        sparsediff.unload_student(wan.pipe)
        assert wan.model.active_adapters() == ["student"]
        assert torch.equal(wan.run(), before)
        with pytest.raises(SparseError, match="choose another adapter_name"):
            sparsediff.load_student(wan.pipe, wan.folder, adapter_name="student")
        assert torch.equal(wan.run(), before)
    finally:
        wan.model.unload_lora()


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("off", [False, True])
def test_a_style_beside_it_is_what_the_user_made_it(wan: Case, fuse: bool, off: bool) -> None:
    """Switched off it stays off and hides nothing of the student; active it is not lost by fusing."""
    torch.manual_seed(3)
    style = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    wan.model.add_adapter(style, adapter_name="style")
    try:
        if off:
            wan.model.disable_lora()
        before = wan.run()
        sparsediff.load_student(wan.pipe, wan.folder, sparse=False)
        wanted = wan.run()
        assert torch.equal(wanted, wan.student) is off
        sparsediff.unload_student(wan.pipe)
        sparsediff.load_student(wan.pipe, wan.folder, sparse=False, fuse=fuse)
        # Weights of order 1 are rounded once to float32; four steps of three layers amplify that.
        torch.testing.assert_close(wan.run(), wanted, atol=1e-3, rtol=1e-3)
        assert torch.dist(wanted, before) > 1
        sparsediff.unload_student(wan.pipe)
        torch.testing.assert_close(wan.run(), before, atol=1e-3, rtol=1e-3)
        assert wan.model.active_adapters() == ["style"]
    finally:
        wan.model.unload_lora()


def test_a_student_with_all_weights_takes_the_models_place(
    wan: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = wan.model
    trained = diffusers.WanTransformer3DModel.from_config(teacher.config)
    trained.register_to_config(_name_or_path="/somewhere/private")
    scheduler = student_scheduler(wan.scheduler, STEPS)
    scheduler.set_timesteps(STEPS)
    card = card_of(wan.pipe, Fingerprint.of(wan.pipe), scheduler, lora=False)
    save_student(tmp_path / "full", card=card, model=trained, scheduler=scheduler)
    with (
        sparsediff.sparse_attention(wan.pipe),
        pytest.raises(SparseError, match="it would run dense"),
    ):
        sparsediff.load_student(wan.pipe, tmp_path / "full", sparse=False)
    assert wan.model is teacher
    assert "private" not in (tmp_path / "full" / "transformer" / "config.json").read_text()
    assert sparsediff.load_student(wan.pipe, tmp_path / "full") is None
    found = wan.run()
    assert wan.model is not teacher
    assert torch.equal(wan.model.patch_embedding.weight, trained.patch_embedding.weight)
    sparsediff.unload_student(wan.pipe)
    assert wan.model is teacher
    assert not torch.equal(found, wan.run())

    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((options["revision"], options["allow_patterns"]))
        return str(tmp_path / "full")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    sparsediff.load_student(wan.pipe, "user/student")
    assert torch.equal(wan.run(), found)
    # The model is fetched of the same commit, whose name the folder has.
    assert asked[1] == ("full", ["transformer/*.json", "transformer/*.safetensors"])


def test_models_without_a_pipelines_loader(tmp_path: Path) -> None:
    found = case_of("hunyuan_video15", tmp_path / "student")
    assert not hasattr(found.pipe, "load_lora_weights")
    sparsediff.load_student(found.pipe, found.folder, sparse=False)
    assert torch.equal(found.run(), found.student)
    sparsediff.unload_student(found.pipe)
    assert torch.equal(found.run(), found.dense)


def other_layers(folder: Path) -> Any:
    pipe = FAMILIES["wan"].build(layers=2)  # type: ignore[call-arg]
    return pipe, PlanMismatchError, r"layers of transformer: the student has 3, this model 2"


def other_model(folder: Path) -> Any:
    return FAMILIES["cogvideox"].build(), PlanMismatchError, "the student has WanTransformer3DModel"


def no_pipeline(folder: Path) -> Any:
    return FAMILIES["wan"].build().transformer, SparseError, "into a diffusers pipeline"


@pytest.mark.parametrize("other", [other_layers, other_model, no_pipeline])
def test_a_wrong_base_is_refused(wan: Case, other: Callable[[Path], Any]) -> None:
    pipe, error, words = other(wan.folder)
    scheduler = getattr(pipe, "scheduler", None)
    with pytest.raises(error, match=words):
        sparsediff.load_student(pipe, wan.folder)
    assert getattr(pipe, "scheduler", None) is scheduler


def test_other_weights_are_warned_of(wan: Case, caplog: pytest.LogCaptureFixture) -> None:
    weight = wan.model.blocks[0].attn1.to_q.weight
    with torch.no_grad():
        weight[0, 0] += 1
    try:
        sparsediff.load_student(wan.pipe, wan.folder, sparse=False)
    finally:
        with torch.no_grad():
            weight.copy_(wan.state["blocks.0.attn1.to_q.weight"])
    assert "trained on other weights" in caplog.text


def test_without_peft_the_error_says_what_to_install(
    wan: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SparseError, match=r"pip install 'sparsediff\[lora\]'"):
        sparsediff.load_student(wan.pipe, wan.folder)
    assert wan.pipe.scheduler is wan.scheduler


def test_what_fails_late_is_undone(wan: Case) -> None:
    with pytest.raises(SparseError, match="no option 'densty'"):
        sparsediff.load_student(wan.pipe, wan.folder, densty=0.5)
    assert wan.pipe.scheduler is wan.scheduler
    assert torch.equal(wan.run(), wan.dense)
    with sparsediff.sparse_attention(wan.pipe), pytest.raises(AlreadyEnabledError):
        sparsediff.load_student(wan.pipe, wan.folder)


def test_no_student_there(wan: Case, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no sparsediff_student\.json"):
        sparsediff.load_student(wan.pipe, tmp_path)
    with pytest.raises(PlanError, match="There is no student"):
        sparsediff.load_student(wan.pipe, tmp_path / "nowhere")


def test_a_hub_id_is_fetched_without_pickles(wan: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["allow_patterns"]))
        return str(wan.folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    sparsediff.load_student(wan.pipe, "user/student", revision="v1", sparse=False)
    assert torch.equal(wan.run(), wan.student)
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("user/student", "v1")
    assert not [pattern for pattern in patterns if "*" in pattern]
    sparsediff.unload_student(wan.pipe)

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("the network is down")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(PlanError, match="'user/student' could not be read from the Hub"):
        sparsediff.load_student(wan.pipe, "user/student")


def test_a_dropped_pipeline_is_freed(wan: Case) -> None:
    pipe = FAMILIES["wan"].build()
    sparsediff.load_student(pipe, wan.folder)
    gone = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert gone() is None
