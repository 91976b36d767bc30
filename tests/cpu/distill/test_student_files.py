"""The files of a student: what they hold, what is refused of them, and what a full disk leaves."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft.utils import get_peft_model_state_dict
from plan_files import plan_of
from safetensors import SafetensorError, safe_open
from tiny_pipelines import wan
from tiny_student import STEPS, card_of, make_student

import sparsediff
from sparsediff.distill.student import student_files
from sparsediff.distill.student.saved_method import SPARSE_ATTENTION, method_text, read_method
from sparsediff.distill.student.student_card import CARD, StudentCard
from sparsediff.distill.student.student_files import save_student
from sparsediff.distill.student.student_readme import student_readme
from sparsediff.distill.student.whole_folder import whole_folder
from sparsediff.kernels.errors import PlanError, SparseError
from sparsediff.search import METHODS

METHOD = sparsediff.Window(density=0.4, block_size=16)
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline with a student on it, the student's card and its folder."""
    folder = tmp_path_factory.mktemp("made") / "student"
    pipe = wan(layers=1)
    card = make_student(pipe, folder, method=METHOD)
    return pipe, card, folder


@pytest.fixture
def student(made: Any, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    pipe, card, _ = made
    folder = tmp_path / "student"
    save(pipe, card, folder)
    return folder


def save(pipe: Any, card: StudentCard, folder: Path, method: Any = METHOD) -> None:
    model, scheduler = pipe.transformer, pipe.scheduler
    save_student(folder, card=card, model=model, scheduler=scheduler, method=method)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_weights_are_what_diffusers_own_saving_writes(made: Any, tmp_path: Path) -> None:
    pipe, _, folder = made
    config = pipe.transformer.peft_config["student"].to_dict()
    config.pop("base_model_name_or_path")
    diffusers.WanPipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(pipe.transformer, adapter_name="student"),
        transformer_lora_adapter_metadata={
            key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
        },
    )
    with safe_open(folder / WEIGHTS, "pt") as ours, safe_open(tmp_path / WEIGHTS, "pt") as theirs:
        assert ours.metadata() == theirs.metadata()
        names = list(ours.keys())
        assert names == list(theirs.keys())
        assert all(torch.equal(ours.get_tensor(k), theirs.get_tensor(k)) for k in names)


def test_the_folder_holds_these_files_and_no_path(made: Any) -> None:
    _, card, folder = made
    files = contents(folder)
    assert set(files) == {
        CARD,
        SPARSE_ATTENTION,
        WEIGHTS,
        "README.md",
        "scheduler/scheduler_config.json",
    }
    assert StudentCard.read(files[CARD]) == card
    assert read_method(files[SPARSE_ATTENTION]) == METHOD
    assert not [name for name, content in files.items() if str(folder.parent).encode() in content]
    readme = files["README.md"].decode()
    assert readme.startswith('---\nlibrary_name: diffusers\nbase_model: "somebody/model"\n')
    assert f"num_inference_steps={STEPS}, guidance_scale=1" in readme
    assert "kind = diffusers.FlowMatchEulerDiscreteScheduler" in readme
    assert "Attention is dense then" in readme
    full = student_readme(replace(card, rank=None, alpha=None, method=None), "DDIMScheduler")
    assert 'from_pretrained(folder, subfolder="transformer")' in full
    assert "load_lora" not in full
    assert "dense then" not in full


def test_given_weights_are_written_in_place_of_the_models(made: Any, tmp_path: Path) -> None:
    pipe, card, _ = made
    own = get_peft_model_state_dict(pipe.transformer, adapter_name="student")
    averaged = {name: value + 1 for name, value in own.items()}
    save_student(
        tmp_path / "x",
        card=replace(card, method=None),
        model=pipe.transformer,
        scheduler=pipe.scheduler,
        weights=averaged,
    )
    with safe_open(tmp_path / "x" / WEIGHTS, "pt") as file:
        assert set(file.keys()) == {f"transformer.{name}" for name in own}
        for name, value in averaged.items():
            assert torch.equal(file.get_tensor(f"transformer.{name}"), value)


def test_a_new_student_replaces_the_old_and_leaves_other_files(made: Any, student: Path) -> None:
    pipe, card, _ = made
    (student / "log.txt").write_text("mine")
    save(pipe, replace(card, method=None), student, method=None)
    assert (student / "log.txt").read_text() == "mine"
    assert not (student / SPARSE_ATTENTION).exists()
    assert StudentCard.read((student / CARD).read_bytes()).method is None
    assert [path.name for path in student.parent.iterdir()] == ["student"]


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_in_the_way_of_a_first_student_is_not_replaced(made: Any, tmp_path: Path) -> None:
    """Without a student's card nothing says that a folder's README.md is a student's."""
    pipe, card, _ = made
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    with pytest.raises(SparseError, match=r"holds README\.md, which would be replaced"):
        save(pipe, card, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"README.md": "mine"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (student_files, "write_adapter"),
        (student_files, "student_readme"),
        (Path, "write_text"),
        (Path, "rename"),
    ],
)
def test_a_full_disk_leaves_the_old_student(
    made: Any, student: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    pipe, card, _ = made
    before = contents(student)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(SparseError, match=r"No space left.*untouched. Free some space"):
            save(pipe, replace(card, figures={}), student)
    assert contents(student) == before
    assert [path.name for path in student.parent.iterdir()] == ["student"]


def test_a_move_that_fails_halfway_is_taken_back(
    made: Any, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, card, _ = made
    before, rename, moves = contents(student), Path.rename, []

    def sixth_fails(path: Path, target: Path) -> Path:
        moves.append(path)
        return full() if len(moves) == 6 else rename(path, target)

    monkeypatch.setattr(Path, "rename", sixth_fails)
    with pytest.raises(SparseError, match="untouched"):
        save(pipe, replace(card, figures={}), student)
    assert len(moves) > 6
    assert contents(student) == before


def test_safetensors_own_error_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    with (
        pytest.raises(SparseError, match="could not be saved"),
        whole_folder(tmp_path / "x", last=CARD, old=()),
    ):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")
    assert not list(tmp_path.iterdir())


def test_card_and_model_have_to_agree(made: Any, tmp_path: Path) -> None:
    pipe, card, _ = made
    with pytest.raises(SparseError, match="card says 'window'"):
        save(pipe, card, tmp_path / "x", method=None)
    with pytest.raises(SparseError, match=r"rank 7 and alpha 3.0; adapter 'student' .*\(2, 3.0\)"):
        save(pipe, replace(card, rank=7), tmp_path / "x")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(SparseError, match="whole pipeline"):
        save(pipe, card, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_read_back_as_it_was(name: str) -> None:
    method = METHODS[name]().with_options(block_size=32, warmup=0.25)
    assert read_method(method_text(method).encode()) == method


def test_a_plans_patterns_are_no_method_of_a_student(made: Any) -> None:
    with pytest.raises(SparseError, match=r"'sparse-vdit'.*PatternPlan\.save_pretrained"):
        method_text(plan_of(made[0]).method())


def edited(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        change(values)
        (folder / file).write_text(json.dumps(values))

    return edit


BROKEN = {
    "unknown key": (edited(CARD, lambda v: v.update(stepps=4)), "unknown key 'stepps'.*'steps'"),
    "wrong type": (edited(CARD, lambda v: v.update(steps="4")), "steps = '4': needs a whole"),
    "NaN": (edited(CARD, lambda v: v.update(guidance=float("nan"))), "NaN is not a number"),
    "deep": (
        edited(CARD, lambda v: v["base"]["components"][0]["heads"].append(-1)),
        r"base\.components\[0\]\.heads\[1\] = -1",
    ),
    "figure": (edited(CARD, lambda v: v["figures"].update(a=True)), r"figures\.a = true"),
    "lacking": (edited(CARD, lambda v: v.pop("sigmas")), "has no key 'sigmas'"),
    "lengths": (edited(CARD, lambda v: v["timesteps"].pop()), "3 timesteps and 5 sigmas"),
    "rising": (edited(CARD, lambda v: v["sigmas"].reverse()), "needs sigmas that fall"),
    "half a LoRA": (edited(CARD, lambda v: v.pop("alpha")), "rank and alpha"),
    "path": (edited(CARD, lambda v: v.update(component="../x")), "component = '../x'"),
    "newer": (
        edited(CARD, lambda v: v.update(schema="sparsediff.student/2")),
        "needs 'sparsediff.student/1'",
    ),
    "grid": (
        edited(CARD, lambda v: v["timesteps"].__setitem__(1, 900.0)),
        "one of the files was changed",
    ),
    "shift": (
        edited("scheduler/scheduler_config.json", lambda v: v.update(shift=2.0)),
        "one of the files was changed",
    ),
    "scheduler": (
        edited("scheduler/scheduler_config.json", lambda v: v.update(_class_name="LCMScheduler")),
        "_class_name = 'LCMScheduler'",
    ),
    "method": (
        edited(SPARSE_ATTENTION, lambda v: v.update(method="windw")),
        "Did you mean 'window'",
    ),
    "option": (
        edited(SPARSE_ATTENTION, lambda v: v["options"].update(density=2)),
        r"sparse_attention\.json: .*options: density=2",
    ),
    "other method": (
        edited(SPARSE_ATTENTION, lambda v: v.update(method="random")),
        "options|two students",
    ),
    "no method": (lambda folder: (folder / SPARSE_ATTENTION).unlink(), f"no {SPARSE_ATTENTION}"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"no {WEIGHTS}"),
    "cut off": (
        lambda folder: (folder / CARD).write_bytes((folder / CARD).read_bytes()[:100]),
        "line . column",
    ),
    "pickle": (
        lambda folder: (folder / CARD).write_bytes(b"\x80\x04\x95" + bytes(20)),
        "is a pickle",
    ),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_broken_file_is_refused_with_its_place(made: Any, student: Path, kind: str) -> None:
    pipe = made[0]
    damage, words = BROKEN[kind]
    damage(student)
    scheduler = pipe.scheduler
    with pytest.raises(PlanError, match=words) as error:
        sparsediff.load_student(pipe, student)
    assert str(student) in str(error.value)
    assert pipe.scheduler is scheduler


def test_broken_weights_leave_the_pipeline_as_it_was(student: Path) -> None:
    pipe = wan(layers=1)
    before = list(pipe.transformer.state_dict())
    (student / WEIGHTS).write_bytes((student / WEIGHTS).read_bytes()[:-50])
    with pytest.raises(SparseError, match="could not be loaded into transformer"):
        sparsediff.load_student(pipe, student)
    assert list(pipe.transformer.state_dict()) == before


def test_cards_of_wrong_values_cannot_be_made(made: Any) -> None:
    pipe, card, _ = made
    with pytest.raises(SparseError, match="Fingerprint"):
        replace(card, base=None)
    with pytest.raises(SparseError, match="guidance"):
        replace(card, guidance=float("inf"))
    assert card_of(pipe, card.base, pipe.scheduler, method=METHOD) == card
