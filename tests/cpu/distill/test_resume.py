"""A training that was killed goes on as if it had not been; one that does not fit is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import settings_of, training_of, weights_of
from training_processes import in_processes, killed_in_a_checkpoint, killed_in_an_iteration

from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.training_start import FREE, PROMPTS, SETTINGS
from sparsediff.kernels.errors import SparseError

CHECKPOINTS = Path("training") / "checkpoints"


def log_of(out: Path) -> list[dict[str, float]]:
    """The log without the seconds, which no two runs share."""
    lines = (out / "training" / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def state_of(training: Distillation) -> dict[str, Any]:
    learners = training.trainer.learners.items()
    return {
        f"{role}.{number}.{name}": value
        for role, learner in learners
        for number, state in learner.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    } | {f"{role}.schedule": learner.schedule.state_dict() for role, learner in learners}


def student_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "pytorch_lora_weights.safetensors")


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return one.keys() == two.keys() and all(equal(value, two[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Distillation]:
    """Four iterations without interruption."""
    out = tmp_path_factory.mktemp("whole")
    training = training_of(out)
    training.run()
    training.save()
    return out, training


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training killed in the midst of its third iteration, after the fake's update."""
    out = tmp_path_factory.mktemp("half")
    assert in_processes(killed_in_an_iteration, out) == [-signal.SIGKILL]
    return out


@pytest.fixture
def begun(half: Path, tmp_path: Path) -> Path:
    """A copy of the killed training, to go on with."""
    return Path(shutil.copytree(half, tmp_path / "begun"))


def test_killed_in_an_iteration_it_goes_on_the_same(
    whole: tuple[Path, Distillation], begun: Path
) -> None:
    with (begun / "training" / "log.jsonl").open("a") as log:
        log.write('{"iteration": 3, "ra')  # what a process killed while it writes leaves
    training = training_of(begun, resume="latest")
    assert training.trainer.iteration == 2
    training.run()
    training.save()
    assert same(weights_of(training), weights_of(whole[1]))
    assert same(state_of(training), state_of(whole[1]))
    assert log_of(begun) == log_of(whole[0])
    assert [line["iteration"] for line in log_of(begun)] == [1, 2, 3, 4]
    assert same(student_of(begun), student_of(whole[0]))
    files = {p.name for p in (begun / CHECKPOINTS).iterdir()}
    assert files == {"iteration-000002", "iteration-000004"}


def test_killed_in_a_checkpoint_it_goes_on_from_the_one_before(
    whole: tuple[Path, Distillation], begun: Path
) -> None:
    assert in_processes(killed_in_a_checkpoint, begun) == [-signal.SIGKILL]
    left = {p.name for p in (begun / CHECKPOINTS).iterdir()}
    assert left == {"iteration-000002", ".iteration-000004.partial"}
    assert len(log_of(begun)) == 4
    training = training_of(begun, resume="latest")
    assert training.trainer.iteration == 2
    training.run()
    assert same(weights_of(training), weights_of(whole[1]))
    assert log_of(begun) == log_of(whole[0])
    left = {p.name for p in (begun / CHECKPOINTS).iterdir()}
    assert left == {"iteration-000002", "iteration-000004"}


def test_more_iterations_and_another_rate_are_taken_up(begun: Path) -> None:
    changes = {"iterations": 3, "learning_rate": 1e-3, "keep_checkpoints": 5}
    training = training_of(begun, resume="latest", **changes)
    before = weights_of(training)
    training.run()
    assert log_of(begun)[-1]["rate"] == 1e-3
    moved = {
        role: max(
            float((value - before[name]).abs().max())
            for name, value in weights_of(training).items()
            if name.startswith(role)
        )
        for role in ("student", "fake")
    }
    # Adam moves a weight by at most about its rate: sqrt((1 - 0.95^3) / 0.05) where all of the
    # gradient came with this, its third update, and 0.95^n is the weight of the past.
    assert 0 < moved["student"] <= 1e-3 * (0.1427 / 0.05) ** 0.5
    assert moved["fake"] > moved["student"]
    kept = json.loads((begun / "training" / SETTINGS).read_text())
    assert kept["learning_rate"] == 1e-3


def test_gone_back_to_an_earlier_checkpoint_the_later_ones_go(begun: Path) -> None:
    later = begun / CHECKPOINTS / "iteration-000010"
    shutil.copytree(begun / CHECKPOINTS / "iteration-000002", later)
    training = training_of(begun, resume="iteration-000002", iterations=3)
    training.run()
    left = {p.name for p in (begun / CHECKPOINTS).iterdir()}
    assert left == {"iteration-000002", "iteration-000003"}


@pytest.mark.parametrize(
    "changes",
    [{"lora_rank": 4}, {"lora_targets": ("to_q",)}, {"steps": 3}, {"method": None}, {"average": 0}],
)
def test_settings_that_do_not_fit_are_named(begun: Path, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(SparseError, match=rf"^{name} was .* is .* now\. Resume with what"):
        training_of(begun, resume="latest", **changes)


def test_every_setting_either_may_change_or_not() -> None:
    assert set(FREE) < set(settings_of().to_dict())


def test_other_prompts_are_refused(begun: Path) -> None:
    (begun / "training" / PROMPTS).write_text('["another"]')
    with pytest.raises(SparseError, match="The prompts are not those of"):
        training_of(begun, resume="latest")


def test_a_folder_with_a_training_is_not_started_anew(begun: Path) -> None:
    with pytest.raises(SparseError, match="--resume_from_checkpoint latest"):
        training_of(begun)


def test_latest_without_a_checkpoint_starts_anew(
    begun: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(begun / CHECKPOINTS)
    training = training_of(begun, resume="latest", iterations=1, checkpoint_every=0)
    assert training.trainer.iteration == 0
    assert "starting anew" in caplog.text
    training.run()
    assert [line["iteration"] for line in log_of(begun)] == [1]
    with pytest.raises(SparseError, match=r"no checkpoint 'iteration-000002'.*there are: none"):
        training_of(begun, resume="iteration-000002", checkpoint_every=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b""),
        ("weights.safetensors", None),
        ("optimizer.bin", b"PK"),
        ("optimizer_1.bin", None),
        ("custom_checkpoint_2.pkl", b"x"),
        ("progress.json", b'{"schema"'),
        ("progress.json", b'{"schema": "sparsediff.distill-checkpoint/9"}'),
    ],
)
def test_a_damaged_checkpoint_is_a_clear_error(
    begun: Path, name: str, content: bytes | None
) -> None:
    checkpoint = begun / CHECKPOINTS / "iteration-000002"
    (checkpoint / name).unlink()
    if content is not None:
        (checkpoint / name).write_bytes(content)
    with pytest.raises(
        SparseError, match=r"iteration-000002 (cannot be loaded|is not a checkpoint)"
    ):
        training_of(begun, resume="latest")
