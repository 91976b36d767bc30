"""Processes of their own: killed at any moment and resumed, and two of them sharing the prompts."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

_ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",  # as torchrun sets it: sums depend on the number of threads
    "PYTHONSAFEPATH": "1",
    "SPARSEDIFF_RANKING": "off",
    "HF_HUB_OFFLINE": "1",
}
_COMMAND = [sys.executable, "-m", "sparsediff.cli"]
_PAIR = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# The command, and a line per process that says how many there were and what this one did.
_SPY = """
import json, sys
from pathlib import Path
from sparsediff.pattern_search.processes import Processes
from sparsediff.pattern_search.units import Units

save, wait, did, seen = Units.save, Processes.wait, [], set()

def saving(self, stage, prompt, *rest):
    did.append([stage, prompt])
    save(self, stage, prompt, *rest)

def waiting(self):
    seen.add((self.count, self.index))
    wait(self)

Units.save, Processes.wait = saving, waiting
from sparsediff.cli import main
code = main(sys.argv[2:])
((count, index),) = seen
(Path(sys.argv[1]) / f"{index}.json").write_text(json.dumps({"count": count, "did": did}))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def arguments(model, prompt_file):
    flags = ["--block-size", "16", "--cost", "flops", "--device", "cpu", "--density", "0.5"]
    return ["search", model, "--prompts", prompt_file, *flags]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """A search by one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    _run([*_COMMAND, *arguments, "--out", str(folder)])
    return folder


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    return done


@contextlib.contextmanager
def _heeding():
    """A shell that runs the tests in its background has them, and their children, ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ended_after(lines, command, journal, end):
    """Send `end` as soon as the journal has so many lines; the return code and what was said."""
    with _heeding():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT)
    with process:
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        process.send_signal(end)
        words = process.stderr.read()
        return process.wait(60), words


@pytest.mark.slow
def test_killed_twice_and_resumed_is_as_if_nothing_had_happened(
    arguments, whole, tmp_path, same_result
):
    run = tmp_path / "run"
    journal = run / "journal.jsonl"
    kept = b""
    for lines, command in [
        (1, [*arguments, "--out", str(run)]),
        (4, ["search", "--resume", str(run)]),
    ]:
        code, _ = _ended_after(lines, [*_COMMAND, *command], journal, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert not (run / "plan.json").exists()
        assert (run / "lock").exists()  # of the dead
        assert journal.read_bytes().startswith(kept)
        kept = journal.read_bytes()[: journal.read_bytes().rindex(b"\n") + 1]
        assert kept.count(b"\n") >= lines
    _run([*_COMMAND, "search", "--resume", str(run)])
    assert journal.read_bytes().startswith(kept)
    same_result(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_says_how_to_go_on(arguments, tmp_path, end):
    run = tmp_path / "run"
    command = [*_COMMAND, *arguments, "--out", str(run)]
    code, words = _ended_after(2, command, run / "journal.jsonl", end)
    assert code == 130
    done = (run / "journal.jsonl").read_bytes().count(b"\n")
    resume = ["search", "--resume", str(run)]
    saved = f"saved {done} of 7 units; resume: sparsediff {' '.join(resume)}"
    assert words.splitlines()[-1] == f"sparsediff search: {saved}"
    assert "Traceback" not in words
    assert not (run / "lock").exists()


@pytest.mark.slow
def test_two_processes_find_the_plan_of_one(arguments, whole, tmp_path, same_result):
    spy, run = tmp_path / "spy.py", tmp_path / "run"
    spy.write_text(_SPY)
    done = _run([*_PAIR, str(spy), str(tmp_path), *arguments, "--out", str(run)])
    told = [json.loads((tmp_path / f"{index}.json").read_text()) for index in (0, 1)]
    assert [process["count"] for process in told] == [2, 2]
    did = [[(stage.partition("-")[0], prompt) for stage, prompt in one["did"]] for one in told]
    assert did[0] == [
        ("profile", 0),
        ("profile", 1),
        ("pilot", 0),
        ("trial", 0),
        ("trial", 1),
        ("psnr", 0),
        ("psnr", 1),
    ]
    assert did[1] == [("profile", 2), ("trial", 2), ("psnr", 2)]
    assert done.stdout.count("next: sparsediff generate") == 1
    same_result(run, whole)
