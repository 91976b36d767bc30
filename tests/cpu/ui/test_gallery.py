"""Gallery: runs that outlive the app, on a disk where anything may have happened."""

import json
import logging
import os
import shutil
import time

import pytest
from toy_folder import PROMPT

from sparsediff.ui.clips import Clips
from sparsediff.ui.gallery import Gallery
from sparsediff.ui.past_run import PastRun
from sparsediff.ui.past_runs import gone, opened, past_runs
from sparsediff.ui.run_figures import RunFigures
from sparsediff.ui.settings import Settings

CHOSEN = Settings(prompt=PROMPT, method="window", density=0.4, seed=41, gate=False)


@pytest.fixture(scope="module")
def compared(comparison):
    found = comparison.run(CHOSEN, lambda _: None)
    assert found.result.report.sparse_calls > 0
    return found


@pytest.fixture(scope="module")
def clips(compared, tmp_path_factory):
    return Clips.write(compared.result, tmp_path_factory.mktemp("clips"))


@pytest.fixture
def gallery(tmp_path):
    return Gallery(tmp_path / "past")


def test_a_run_is_there_after_a_restart(gallery, compared, clips, comparison):
    kept = gallery.add(compared, clips)
    (run,) = Gallery(gallery.folder).runs()
    assert run == kept
    assert run.settings == CHOSEN
    assert run.figures == RunFigures.of(compared)
    assert run.figures.sparse_calls > 0
    for was, now in ((clips.dense, run.clips.dense), (clips.sparse, run.clips.sparse)):
        assert now.read_bytes() == was.read_bytes()
        assert now.parent == run.folder
    document = json.loads((run.folder / "run.json").read_text())
    assert document["result"]["versions"]["torch"]
    assert document["result"]["device_name"] == compared.result.device_name
    assert document["result"]["method"] == dict(compared.result.report.method)
    assert document["result"]["model"] == "toy-wan"  # not where it lies
    assert "Its settings are back" in opened(run, comparison)
    assert "It was made with" not in opened(run, comparison)


def test_the_list_shows_the_newest_first_and_no_markup_of_a_prompt(gallery, compared, clips):
    first = gallery.add(compared, clips)
    path = first.folder / "run.json"
    path.write_text(path.read_text().replace(f'"prompt": "{PROMPT}"', '"prompt": "<script>"'))
    later = first.folder.rename(first.folder.with_name("20990101T000000000000-00000000"))
    gallery.add(compared, clips)
    page = past_runs(gallery.runs())
    assert page.count("data-run=") == 2
    assert page.index(later.name) < page.index(PROMPT)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count('src="data:image/jpeg;base64,') == 2


def test_the_oldest_make_room(gallery, compared, clips):
    one = gallery.add(compared, clips).size
    for number in range(4):
        copied(gallery, f"20200101T00000{number}000000-00000000")
    gallery.most_runs = 3
    newest = gallery.add(compared, clips)
    assert gallery.runs()[0] == newest
    assert len(gallery.runs()) == 3
    assert len(list(gallery.folder.iterdir())) == 3
    gallery.most_bytes = 2 * one + one // 2
    newest = gallery.add(compared, clips)
    assert len(gallery.runs()) == 2
    gallery.most_bytes = 10
    assert gallery.add(compared, clips) is None  # larger than all may be: the others stay
    assert len(gallery.runs()) == 2


def copied(gallery, name):
    """A second run, made of the newest."""
    return shutil.copytree(gallery.runs()[0].folder, gallery.folder / name)


def broken_json(folder):
    (folder / "run.json").write_text('{"schema": "sparsediff.ui-run/1"')


def changed(folder, *keys, value):
    path = folder / "run.json"
    document = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(document))


def no_video(folder):
    (folder / "dense.mp4").write_bytes(b"#!/bin/sh\necho this is no video\n")


def a_link(folder):
    (folder / "sparse.mp4").unlink()
    (folder / "sparse.mp4").symlink_to("/etc/passwd")


def a_huge_document(folder):
    (folder / "run.json").write_bytes(b" " * (2**20 + 1))


def a_pipe(folder):
    (folder / "dense.mp4").unlink()
    os.mkfifo(folder / "dense.mp4")  # whoever opens it waits for ever


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (broken_json, "line 1 column"),
        (lambda folder: changed(folder, "schema", value="sparsediff.ui-run/2"), "schema ="),
        (lambda folder: changed(folder, "settings", "density", value=7), r"density=7"),
        (lambda folder: changed(folder, "settings", "file", value="/etc"), "unknown key 'file'"),
        (lambda folder: changed(folder, "result", "psnr", value="high"), "psnr = 'high'"),
        (lambda folder: changed(folder, "result", "size", value=[1]), "result.frames = null"),
        (lambda folder: changed(folder, "made", value="yesterday"), "made = 'yesterday'"),
        (lambda folder: changed(folder, "made", value="0001-01-01T00:00:00+14:00"), "needs a time"),
        (
            lambda folder: changed(folder, "settings", "prompt", value="\ud800"),
            "only half of one",
        ),
        (no_video, "dense.mp4 is missing, too large or no .mp4"),
        (a_link, "sparse.mp4 is missing, too large or no .mp4"),
        (a_pipe, "dense.mp4 is missing, too large or no .mp4"),
        (a_huge_document, "run.json is missing, too large"),
        (lambda folder: (folder / "poster.jpg").unlink(), "poster.jpg is missing"),
    ],
)
def test_a_broken_run_is_passed_over_once(gallery, compared, clips, caplog, spoil, said):
    good = gallery.add(compared, clips)
    bad = copied(gallery, "20200101T000000000000-00000000")
    spoil(bad)
    with caplog.at_level(logging.WARNING, logger="sparsediff"):
        assert [run.name for run in gallery.runs()] == [good.name]
        gallery.runs()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "passed over" in line
    assert said in line
    assert gallery.get(bad.name) is None
    assert bad.is_dir()  # it may be somebody's


def test_foreign_files_are_left_alone(gallery, compared, clips, caplog, tmp_path):
    gallery.most_runs = 1
    gallery.folder.mkdir()
    (gallery.folder / "notes.txt").write_text("mine")
    (gallery.folder / "20200101T000000000000-00000000").symlink_to(tmp_path)
    gallery.add(compared, clips)
    gallery.add(compared, clips)
    assert len(gallery.runs()) == 1
    assert (gallery.folder / "notes.txt").read_text() == "mine"
    assert tmp_path.is_dir()
    assert "notes.txt is no folder of a run" in caplog.text


def test_a_page_plays_copies_from_its_own_folder(gallery, compared, clips, tmp_path):
    run = gallery.add(compared, clips)
    folder = tmp_path / "played"
    out = run.clips.copied(folder, run.name)
    assert {out.dense.parent, out.sparse.parent} == {folder}  # no other folder is served
    assert out.dense.read_bytes() == clips.dense.read_bytes()
    assert run.clips.copied(folder, run.name) == out
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["../past", "/etc", ".", "", "notes.txt", "x" * 5000, "a\0b"])
def test_a_name_is_looked_up_and_never_a_path(gallery, compared, clips, name):
    gallery.add(compared, clips)
    assert gallery.get(name) is None
    assert "not there any more" in gone()


def test_a_full_disk_costs_no_run(gallery, compared, clips, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsediff.ui.gallery.shutil.copyfile", full)
    assert gallery.add(compared, clips) is None
    assert "is not kept" in caplog.text
    assert list(gallery.folder.iterdir()) == []


def test_what_a_crash_left_goes_after_a_day(gallery):
    names = (
        ".20200101T000000000000-00000000.tmp",
        ".20200101T000001000000-00000000.tmp",
        ".mine.tmp",
    )
    for name in names:
        (gallery.folder / name).mkdir(parents=True)
    for name in (names[0], names[2]):
        os.utime(gallery.folder / name, (time.time() - 10**6,) * 2)
    assert Gallery(gallery.folder).runs() == ()
    assert sorted(path.name for path in gallery.folder.iterdir()) == [names[1], names[2]]


def test_runs_of_elsewhere_say_so(gallery, compared, clips, comparison):
    run = gallery.add(compared, clips)
    changed(run.folder, "settings", "method", value="plan of mine")
    changed(run.folder, "result", "model", value="org/large")
    said = opened(PastRun.load(run.folder), comparison)
    assert "made with org/large; Compare runs toy-wan" in said
    assert "plan of mine, is not here" in said
