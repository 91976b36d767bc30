"""The run folder: refused before anything is loaded, locked while in use, settings compared."""

import dataclasses
import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.lock import folder_lock
from sparsediff.pattern_search.options import SearchOptions
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import SearchSettings

SETTINGS = SearchSettings(
    model="some/model",
    prompts=("a red circle", "a blue ring"),
    budget=Budget(kind="density", value=0.3),
    call={"height": 64, "num_inference_steps": 10},
    dtype="float32",
    device="cpu",
    weights="ab12",
    versions={"torch": "2.13"},
)
_HOLD = """
import sys, time
from pathlib import Path
from sparsediff.pattern_search.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_search_is_refused_with_the_pid_of_the_first(tmp_path, holder):
    words = rf"process {holder.pid} on .* is at work in"
    with pytest.raises(SparseError, match=words), folder_lock(tmp_path):
        pytest.fail("two searches in one folder")


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()  # stale
    with folder_lock(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_pid_in_a_file_that_nobody_holds_means_nothing(tmp_path):
    (tmp_path / "lock").write_text("1 on here\n")  # a process that lives
    with folder_lock(tmp_path):
        pass


def test_settings_come_back(tmp_path):
    folder = RunFolder(path=tmp_path)
    folder.write_settings(SETTINGS)
    assert folder.read_settings() == SETTINGS
    assert SETTINGS.differences(folder.read_settings()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"prompts": ("a red circle", "a pink ring")},
            "prompts[1] is 'a blue ring', now 'a pink ring'",
        ),
        ({"prompts": ("a red circle",)}, "prompts[1] is 'a blue ring', now nothing"),
        (
            {"call": {"height": 64, "num_inference_steps": 12}},
            "call.num_inference_steps is 10, now 12",
        ),
        ({"dtype": "bfloat16"}, "dtype is 'float32', now 'bfloat16'"),
        ({"device": "cuda"}, "device is 'cpu', now 'cuda'"),
        ({"seed": 3}, "seed is 0, now 3"),
        ({"weights": "cd34"}, "weights is 'ab12', now 'cd34'"),
        ({"versions": {"torch": "2.14"}}, "versions.torch is '2.13', now '2.14'"),
        ({"options": SearchOptions(online=True)}, "options.online is False, now True"),
    ],
)
def test_what_changes_the_result_is_named(changes, words):
    assert SETTINGS.differences(dataclasses.replace(SETTINGS, **changes)) == [words]


def test_a_moved_model_and_another_budget_are_the_same_search():
    other = dataclasses.replace(SETTINGS, model="moved", budget=Budget(kind="psnr", value=30))
    assert SETTINGS.differences(other) == []
    assert SETTINGS.differences(SETTINGS.with_weights("")) == []  # not read yet


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other/1"}, "its schema is 'other/1'"),
        ({"promts": []}, "unknown key 'promts'. Did you mean 'prompts'"),
        ({"budget": {"kind": "money", "value": 1}}, "budget 'money'"),
        ({"budget": 3}, "incomplete or damaged"),
        ({"options": {"onlin": True}}, "Did you mean 'online'"),
        ({"prompts": []}, "at least one calibration prompt"),
    ],
)
def test_damaged_settings_are_refused(change, words):
    with pytest.raises(SparseError) as caught:
        SearchSettings.from_dict(SETTINGS.to_dict() | change, source="here/settings.json")
    assert words in str(caught.value)
    assert "here/settings.json" in str(caught.value)


def test_a_folder_with_a_search_or_with_anything_else_is_refused(tmp_path):
    folder = RunFolder(path=tmp_path)
    folder.check_new()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SparseError, match="is not empty"):
        folder.check_new()
    folder.write_settings(SETTINGS)
    with pytest.raises(SparseError, match=r"already holds a search\. Go on with it by --resume"):
        folder.check_new()


def test_a_folder_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SparseError, match="cannot be made"):
        RunFolder(path=tmp_path / "file" / "run").check_new()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(SparseError, match="not writable"):
        RunFolder(path=tmp_path / "a" / "b").check_new()
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = RunFolder(path=tmp_path)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SparseError, match=r"settings\.json could not be written: No space left"):
        folder.write_json("settings.json", {})
    with pytest.raises(SparseError, match=r"trials\.safetensors could not be written: No space"):
        folder.write_tensors("trials.safetensors", {})
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_resume(tmp_path):
    with pytest.raises(SparseError, match="holds no search to resume"):
        RunFolder(path=tmp_path / "none").read_settings()


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    folder = RunFolder(path=tmp_path / "a")
    with pytest.raises(SparseError, match="broken"), folder.locked():
        assert folder.path.is_dir()
        raise SparseError("broken")
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("density", 0, "(0, 1]"),
        ("density", 1.5, "(0, 1]"),
        ("density", float("nan"), "needs a number"),
        ("density", "some", "needs a number"),
        ("psnr", -3, "decibels above 0"),
        ("speedup", 0.5, "at least 1"),
        ("colour", 1, "one of density, psnr, speedup"),
    ],
)
def test_a_budget_that_means_nothing(kind, value, words):
    with pytest.raises(SparseError) as caught:
        Budget(kind=kind, value=value)
    assert words in str(caught.value)
