"""Desk: what a page is shown, from pressing Compare to a closed browser."""

import os
import time

import pytest
from toy_folder import PROMPT

from sparsediff.media import read_frames
from sparsediff.root_hooks import session_on
from sparsediff.ui.desk import Desk
from sparsediff.ui.figures import figures
from sparsediff.ui.run_figures import RunFigures

VALUES = {"prompt": PROMPT, "method": "window", "density": 0.4, "warmup": 0.2, "gate": False}


@pytest.fixture
def desk(comparison, tmp_path):
    return Desk(comparison, tmp_path)


def test_a_run_is_told_and_ends_with_files(desk):
    *news, last = desk.compare("page", VALUES)
    assert news
    assert all(shown.running and 'role="progressbar"' in shown.status for shown in news)
    assert not last.running
    assert "attention calls ran sparse" in last.status
    assert last.compared.result.report.sparse_calls > 0
    for path in (last.clips.dense, last.clips.sparse):
        assert path.parent == desk.folder
        assert read_frames(path).shape == (5, 256, 256, 3)  # enlarged for players
    strip = figures(RunFigures.of(last.compared))
    assert f"{last.compared.result.quality.psnr:.1f} dB" in strip
    assert desk.jobs.running == 0
    os.utime(last.clips.dense, (0, 0))  # pages play copies of it since long ago
    *_, after = desk.compare("page", VALUES)
    assert not last.clips.dense.exists()
    assert last.clips.sparse.exists()
    assert after.clips.dense.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "whole number from 1 to 500"),
        ({"method": "<script>alert(1)</script>"}, "&lt;script&gt;"),
        ({"width": 120}, "have to be divisible by 16"),
        ({"steps": 1, "method": "adaspa"}, "Use more steps"),
    ],
)
def test_errors_are_said_with_a_remedy(desk, changes, said):
    *_, last = desk.compare("page", VALUES | changes)
    assert 'data-state="error"' in last.status
    assert said in last.status
    assert "<script>" not in last.status
    assert last.compared is None
    *_, after = desk.compare("page", VALUES)  # the next run works
    assert after.compared is not None


def test_stop_is_not_an_error(desk):
    shown = []
    for found in desk.compare("page", VALUES | {"steps": 200}):
        shown.append(found)
        desk.stop("another page")
        if "step" in found.status:
            desk.stop("page")
    assert "Stopped. The model is as it was before." in shown[-1].status
    assert 'data-state="error"' not in shown[-1].status


def test_a_closed_page_leaves_no_job(desk, comparison):
    shown = desk.compare("page", VALUES | {"steps": 300})
    next(shown)
    assert desk.jobs.running == 1
    desk.stop("page")  # what the page's unload calls
    shown.close()
    end = time.monotonic() + 10
    while len(comparison.line) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(comparison.line) == 0
    assert desk.jobs.running == 0
    assert session_on(comparison.loaded(lambda _: None).pipe.transformer) is None


def test_several_densities_become_points_of_one_dense_run(desk, monkeypatch):
    monkeypatch.setattr("sparsediff.ui.desk.SWEEP", (0.4, 1.0))
    *news, last = desk.sweep("page", VALUES | {"seed": 31})
    told = " ".join(shown.status for shown in news)
    assert "Density 0.4, sparse: step" in told
    assert "Density 1, dense" not in told  # run once
    assert [point.density for point in last.points] == [0.4, 1.0]
    assert "2 densities were run" in last.status
    assert last.points[0].psnr is not None
    *_, again = desk.compare("page", VALUES | {"seed": 31})
    assert [point.density for point in again.points] == [1.0, 0.4]  # its own replaced, last
