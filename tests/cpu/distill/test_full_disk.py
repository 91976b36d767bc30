"""A disk that is full costs what could not be written, never what was there."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tiny_training import training_of

from sparsediff import media
from sparsediff.distill.training import checkpoints
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.trainer import Figures
from sparsediff.distill.training.training_log import TrainingLog
from sparsediff.distill.whole_file import write_whole
from sparsediff.kernels.errors import SparseError

FULL = OSError(errno.ENOSPC, "No space left on device")


def _fail(error: Exception) -> Callable[..., Any]:
    def full(*args: Any, **words: Any) -> Any:
        raise error

    return full


def _no_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def full(self: Path, target: Any) -> Path:
        if self.name.endswith(".partial"):
            raise FULL
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)


def _no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(self: Path, *args: Any, **words: Any) -> int:
        if self.name == "progress.json":
            raise FULL
        return write(self, *args, **words)

    monkeypatch.setattr(Path, "write_text", full)


PLACES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "weights": lambda patch: patch.setattr(checkpoints, "save_file", _fail(SafetensorError("I/O"))),
    "optimisers": lambda patch: patch.setattr(
        torch, "save", _fail(RuntimeError("file write failed"))
    ),
    "progress": _no_progress,
    "flush": lambda patch: patch.setattr(checkpoints, "flush", _fail(FULL)),
    "rename": _no_rename,
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Distillation:
    """A training with a checkpoint of iteration 1."""
    training = training_of(tmp_path_factory.mktemp("begun"), iterations=1, checkpoint_every=1)
    training.run()
    return training


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_is_whole_or_not_there(
    begun: Distillation, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = begun.checkpoints.folder
    before = files(folder)
    PLACES[place](monkeypatch)
    with pytest.raises(SparseError) as caught:
        begun.checkpoints.save(2)
    said = str(caught.value)
    assert said.startswith("The checkpoint of iteration 2 could not be written: ")
    assert f"The last good one is {folder / 'iteration-000001'}. Make room" in said
    assert files(folder) == before
    assert [path.name for path in folder.iterdir()] == ["iteration-000001"]
    assert begun.checkpoints.load(begun.checkpoints.find("latest")) == 1


def test_a_file_that_may_not_grow(begun: Distillation) -> None:
    """Not a patch but the system refuses to write, whoever writes: here above 4000 bytes."""
    before = files(begun.checkpoints.folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(SparseError, match=r"iteration 2 could not be written: .*Make room"):
            begun.checkpoints.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(begun.checkpoints.folder) == before
    assert [path.name for path in begun.checkpoints.folder.iterdir()] == ["iteration-000001"]


def test_the_log_says_that_it_cannot_go_on(begun: Distillation, tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl", begun.accelerator, done=0)
    log.path.symlink_to("/dev/full")
    figures = Figures(iteration=7, losses={"fake": 1.0}, norms={"fake": 1.0}, rate=0.1)
    with pytest.raises(
        SparseError, match=r"log\.jsonl could not be written at iteration 7: .*space"
    ):
        log.note(figures)


def test_validation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(
        tmp_path, iterations=1, checkpoint_every=1, validate_every=1, validation_prompts=("a", "b")
    )
    write, done = media.write_frames, []

    def second_fails(*args: Any, **words: Any) -> Any:
        done.append(args)
        if len(done) == 2:
            raise FULL
        return write(*args, **words)

    monkeypatch.setattr(media, "write_frames", second_fails)
    with pytest.raises(
        SparseError, match=r"validation of iteration 1 could not be written: .*space"
    ):
        training.run()
    assert len(done) == 2
    assert not list((tmp_path / "training" / "validation").iterdir())
    assert training.checkpoints.find("latest").name == "iteration-000001"


@pytest.mark.parametrize("rank", [2, 0])
def test_validation_shows_the_student(tmp_path: Path, rank: int) -> None:
    training = training_of(
        tmp_path, iterations=2, checkpoint_every=0, average=0.0, lora_rank=rank, validate_every=2,
        validation_prompts=("a red circle",),
    )  # fmt: skip
    started = training.validation.generate(0)[0].read_bytes()
    training.run()
    (written,) = (tmp_path / "training" / "validation" / "iteration-000002").iterdir()
    assert written.name == "00.mp4"
    assert written.read_bytes() != started  # the teacher's video would be the same


def test_a_file_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.json"
    write_whole(path, "old")
    monkeypatch.setattr(Path, "replace", _fail(FULL))
    with pytest.raises(SparseError, match=r"settings\.json could not be written: .*No space left"):
        write_whole(path, "new")
    assert files(tmp_path) == {"settings.json": b"old"}
