"""Figures of a result: medians, spread, speed-up, the printed table, the JSON object."""

import dataclasses
import json
import math

import pytest

from sparsediff.cli.figures import figures
from sparsediff.cli.outputs import Outputs
from sparsediff.cli.table import table
from sparsediff.generation_result import Timing
from sparsediff.kernels.errors import SparseError
from sparsediff.quality import quality

KEYS = (
    "schema model prompt seed steps device dtype dense_seconds sparse_seconds speedup psnr ssim "
    "flicker density sparse_density sparse_calls dense_calls fallbacks outputs n iqr method versions"
)


def test_median_and_spread():
    assert Timing(seconds=(3.0, 1.0)).median == 2.0
    assert Timing(seconds=(3.0, 1.0)).iqr is None
    assert Timing(seconds=(1.0, 2.0, 3.0, 4.0, 5.0)).iqr == pytest.approx(2.0)


def test_json_object(make_result):
    found = json.loads(json.dumps(make_result().to_dict({"sparse": "s.mp4"}), allow_nan=False))
    assert set(KEYS.split()) <= set(found)
    assert found["schema"] == "sparsediff.generate/1"
    assert found["speedup"] == pytest.approx(2.0)
    assert found["n"] == 3
    assert found["outputs"] == {"sparse": "s.mp4"}
    assert found["psnr"] > 10
    assert found["identical"] is False


def test_json_of_identical_videos_has_no_infinity(make_result):
    result = make_result()
    same = dataclasses.replace(result, quality=quality(result.sparse_frames, result.sparse_frames))
    assert math.isinf(same.quality.psnr)
    found = json.loads(json.dumps(same.to_dict(), allow_nan=False))
    assert found["psnr"] is None
    assert found["identical"] is True
    assert "identical" in figures(same, {})


def test_json_without_a_dense_run_has_nulls(make_result):
    found = make_result(compare=False).to_dict()
    for key in ("dense_seconds", "speedup", "psnr", "ssim", "flicker"):
        assert found[key] is None
    assert found["sparse_seconds"] == pytest.approx(1.0)


def test_sentences_that_begin_with_a_figure_stand_left():
    rows = [("a", "1.5 GiB", "0.2 in the 48 calls"), ("b", "12 GiB", "1,280 tokens, of 0.5")]
    assert table(rows).splitlines() == [
        "  a  1.5 GiB  0.2 in the 48 calls",
        "  b   12 GiB  1,280 tokens, of 0.5",
    ]


def test_printed_table_is_plain_and_aligned(make_result):
    text = figures(make_result(fallbacks={"odd mask": 2}), {"sparse": "out/s.mp4"})
    assert "\x1b" not in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["speed-up"].index("2.00x") + 5 == lines["seconds"].index("1.000") + 5
    assert "2 x odd mask" in lines["fallbacks"]
    assert "out/s.mp4" in text


def test_table_puts_numbers_to_the_right():
    assert table([("a", "1"), ("bb", "22")]) == "  a    1\n  bb  22"


def test_outputs_in_a_folder_and_beside_a_file(tmp_path):
    folder = Outputs.of("out/v0.2", name="x")
    assert folder.path("dense", ".mp4").as_posix() == "out/v0.2/dense.mp4"
    file = Outputs.of("out/clip.gif", name="x")
    assert file.path("sparse", ".gif").as_posix() == "out/clip.gif"
    assert file.path("dense", ".gif").as_posix() == "out/clip-dense.gif"
    assert file.path("report", ".html").as_posix() == "out/clip.html"
    named = Outputs.of(None, name="A red/../circle, 3")
    assert named.folder.as_posix() == "runs/a-red-circle-3"
    assert Outputs.of("out/my.clips/", name="x").folder.as_posix() == "out/my.clips"
    (tmp_path / "some.d").mkdir()
    assert Outputs.of(str(tmp_path / "some.d"), name="x").folder == tmp_path / "some.d"


@pytest.mark.parametrize("output", ["clip.webm", "a.txt", "out/A.JPG", "b.3gp", "c.mp"])
def test_other_endings_are_refused(output):
    with pytest.raises(SparseError, match=r"cannot be written.*\.mp4, \.gif, \.png"):
        Outputs.of(output, name="x")


@pytest.mark.parametrize(
    ("output", "frames", "kinds"),
    [
        ("out", 5, {"sparse": "sparse.mp4", "dense": "dense.mp4"}),
        ("out", 1, {"sparse": "sparse.png", "dense": "dense.png"}),
        ("out/a.gif", 5, {"sparse": "a.gif", "dense": "a-dense.gif"}),
        ("out/a.png", 1, {"sparse": "a.png", "dense": "a-dense.png"}),
        ("out/a.png", 5, {"sparse": "a.mp4", "dense": "a-dense.mp4"}),
    ],
)
def test_outputs_are_written(make_result, tmp_path, output, frames, kinds):
    outputs = Outputs.of(str(tmp_path / output), name="x")
    outputs.check(frames=1)
    written = outputs.write(make_result(frames=frames), command="c")
    assert {k: v.rpartition("/")[2] for k, v in written.items() if k in kinds} == kinds
    content = json.loads((tmp_path / written["result"]).read_text())
    assert content["outputs"] == written
    assert all((tmp_path / path).stat().st_size > 0 for path in written.values())
