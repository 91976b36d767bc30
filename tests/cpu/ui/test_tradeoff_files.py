"""The chart's files: a picture that stands by itself, and figures that repeat the runs."""

import base64
import io
import json
import re
from dataclasses import fields

import pytest
from toy_folder import PROMPT

from sparsediff.ui.run_document import tradeoff_document
from sparsediff.ui.settings import Settings
from sparsediff.ui.tradeoff import History, Point
from sparsediff.ui.tradeoff_chart import tradeoff
from sparsediff.ui.tradeoff_picture import picture
from sparsediff.ui.tradeoff_scale import LEFT, RIGHT, WIDTH, Scale


@pytest.fixture(scope="module")
def points(comparison):
    history = History()
    for density in (0.4, 1.0):
        settings = Settings(prompt=PROMPT, method="window", density=density, seed=51, gate=False)
        found = history.add(comparison.run(settings, lambda _: None))
    assert all(point.run["result"]["sparse_calls"] > 0 for point in found)
    return found


def files(page):
    """The contents of the links by suffix."""
    links = re.findall(r'download="[\w-]+\.(\w+)" href="data:([\w/]+);base64,([^"]+)"', page)
    return {suffix: (kind, base64.b64decode(content)) for suffix, kind, content in links}


def test_the_figures_repeat_the_runs(points, comparison):
    kind, content = files(tradeoff(points))["json"]
    assert kind == "application/json"
    document = json.loads(content)
    assert document["schema"] == "sparsediff.tradeoff/1"
    assert [run["result"]["psnr"] for run in document["runs"]] == [p.psnr for p in points]
    for run, point in zip(document["runs"], points, strict=True):
        assert {field.name for field in fields(Settings)} == set(run["settings"])
        assert {"torch", "diffusers", "sparsediff"} <= set(run["result"]["versions"])
        assert run["result"]["dtype"] == "float32"
        assert run["result"]["device_name"]
        settings = Settings(**run["settings"])
        assert settings.density == point.density
    again = comparison.run(Settings(**document["runs"][0]["settings"]), lambda _: None)
    assert Point.of(again).psnr == points[0].psnr
    assert again.result.report.density == document["runs"][0]["result"]["density"]


def test_the_picture_is_drawn_with_its_runs_inside(points):
    from PIL import Image

    kind, content = files(tradeoff(points))["png"]
    assert kind == "image/png"
    drawn = Image.open(io.BytesIO(content))
    assert drawn.width == 2 * WIDTH
    colours = {colour for _, colour in drawn.convert("RGB").getcolors(2**24)}
    assert {(0x2F, 0x6F, 0xAB), (0x20, 0x24, 0x2A), (255, 255, 255)} <= colours
    expected = json.loads(json.dumps(tradeoff_document(point.run for point in points)))
    assert json.loads(drawn.text["sparsediff"]) == expected


def test_a_prompt_beyond_the_font_still_makes_a_picture(points):
    run = {**points[0].run, "result": {**points[0].run["result"], "prompt": "\u4e00\u8258\u8239"}}
    strange = Point(
        method="m", density=1, realised=1, seconds=1, speedup=30, psnr=None, ssim=1, run=run
    )
    assert picture([strange]).startswith(b"\x89PNG")


def test_nothing_to_download_without_runs():
    assert files(tradeoff(())) == {}


@pytest.mark.parametrize("speedup", [0.2, 3.9, 30.0])
def test_the_marks_of_the_scale_lie_inside_and_are_few(speedup):
    point = Point(method="m", density=1, realised=1, seconds=1, speedup=speedup, psnr=20, ssim=1)
    marks = Scale([point]).speeds()
    assert 2 < len(marks) < 20
    assert all(LEFT <= x <= WIDTH - RIGHT for _, x in marks)
