"""The journal and its units: what a crash can leave behind, and that two processes may append."""

import json
import subprocess
import sys

import pytest
import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.journal import Entry, Journal
from sparsediff.pattern_search.units import Units


def _entry(prompt):
    return Entry(stage="profile", prompt=prompt, sha256="0" * 64, seconds=1.5)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for prompt in range(3):
        journal.append(_entry(prompt))
    return journal


def test_entries_come_back_in_order(journal):
    assert journal.entries() == [_entry(0), _entry(1), _entry(2)]


def test_no_file_is_no_entry(tmp_path):
    assert Journal(tmp_path / "none").entries() == []


@pytest.mark.parametrize(
    "torn", [b'{"stage": "prof', b"\x00\x00\x00", b'{"stage": 1}\n', b"\xff\n"]
)
def test_a_torn_last_line_does_not_count_and_is_cut_off(journal, torn):
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    assert len(journal.entries()) == 3
    journal.mend()
    assert journal.path.read_bytes() == whole
    journal.append(_entry(3))
    assert [entry.prompt for entry in journal.entries()] == [0, 1, 2, 3]


def test_every_prefix_of_the_file_is_readable(journal):
    whole = journal.path.read_bytes()
    ends = [i for i, byte in enumerate(whole, start=1) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        assert len(journal.entries()) == sum(end <= length for end in ends)


def test_a_bad_line_in_the_middle_is_an_error_that_names_it(journal):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"rubbish\n" + lines[2])
    with pytest.raises(SparseError, match="line 2"):
        journal.entries()


def test_two_processes_append_whole_lines(tmp_path):
    code = f"""
from pathlib import Path
import sys
from sparsediff.pattern_search.journal import Entry, Journal
journal = Journal(Path({str(tmp_path / "both.jsonl")!r}))
for prompt in range(40):
    journal.append(Entry(stage=sys.argv[1], prompt=prompt, sha256="a" * 64, seconds=0.1))
"""
    both = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("profile", "trial")]
    assert [process.wait(60) for process in both] == [0, 0]
    found = Journal(tmp_path / "both.jsonl").entries()
    assert len(found) == 80
    assert [e.prompt for e in found if e.stage == "trial"] == list(range(40))


def test_units_come_back_bit_by_bit(tmp_path):
    units = Units(tmp_path)
    given = {"a": torch.randn(3, 4, dtype=torch.float64), "b.c": torch.arange(5)[::2]}
    units.save("profile", 2, given, seconds=3.0)
    units.save("profile", 0, given, seconds=5.0)
    assert units.done("profile") == [0, 2]
    assert units.done("trial") == []
    found = units.load("profile", 2)
    assert set(found) == set(given)
    assert all(torch.equal(found[name], given[name]) for name in given)
    assert list(units.load("profile", 0, only=["a"])) == ["a"]
    assert list(units.load("profile", 0, without=["a"])) == ["b.c"]
    assert units.seconds() == {"profile": [3.0, 5.0]}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_unit_is_missing(tmp_path):
    units = Units(tmp_path)
    units.save("trial", 0, {"a": torch.ones(4)}, seconds=1)
    path = tmp_path / "units" / "trial-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert units.done("trial") == []
    with pytest.raises(SparseError, match="missing or damaged"):
        units.load("trial", 0)


def test_a_file_without_an_entry_is_missing(tmp_path):
    units = Units(tmp_path)
    units.save("trial", 0, {"a": torch.ones(4)}, seconds=1)
    units.journal.path.write_text("")
    assert units.done("trial") == []


def test_a_full_disk_is_an_error_of_ours_and_leaves_no_entry(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsediff.pattern_search.units._to_disk", full)
    units = Units(tmp_path)
    with pytest.raises(SparseError, match=r"No space left on device\. Make room, then resume"):
        units.save("trial", 0, {"a": torch.ones(4)}, seconds=1)
    assert units.journal.entries() == []


def test_a_stage_that_leaves_the_folder_is_no_entry(journal):
    line = json.dumps({"stage": "../x", "prompt": 0, "sha256": "", "seconds": 1})
    journal.path.write_text(line + "\n" + line + "\n")
    with pytest.raises(SparseError, match="line 1"):
        journal.entries()
