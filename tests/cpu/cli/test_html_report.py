"""The report is one file that holds everything, and no text of the user's becomes markup."""

import base64
import json

import pytest
from page_reader import Page

from sparsediff.html_report import html_report, write_report
from sparsediff.report_pages.charts import short_names

EVIL = '</script><script>alert("1")</script> & <b>"bold"</b>'


def _page(result, **arguments):
    given = {"command": "sparsediff generate x", "outputs": {"sparse": "s.mp4"}} | arguments
    return Page(html_report(result, **given))


def test_nothing_is_fetched(make_result):
    text = html_report(make_result(), command="c", outputs={})
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert "@import" not in text
    assert "url(" not in text
    policy = next(v["content"] for t, v in page.tags if v.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("field", ["prompt", "command", "fallbacks", "outputs"])
def test_texts_are_escaped(make_result, field):
    plain = _page(make_result(fallbacks={"why": 1}))
    given = {"prompt": EVIL} if field == "prompt" else {}
    fallbacks = {EVIL if field == "fallbacks" else "why": 1}
    arguments = {"command": EVIL} if field == "command" else {}
    arguments |= {"outputs": {"sparse": EVIL}} if field == "outputs" else {}
    page = _page(make_result(fallbacks=fallbacks, **given), **arguments)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert EVIL in page.words
    assert json.loads(page.scripts["application/json"])["schema"] == "sparsediff.generate/1"


def test_holds_the_figures_as_json(make_result):
    result = make_result(prompt=EVIL)
    raw = json.loads(_page(result).scripts["application/json"])
    assert raw == json.loads(json.dumps(result.to_dict({"sparse": "s.mp4"})))
    assert raw["prompt"] == EVIL


def test_shows_both_videos_and_the_kept_blocks(make_result):
    page = _page(make_result())
    assert page.count("video") == 2
    videos = [v["src"] for t, v in page.tags if t == "video"]
    assert all(b"ftyp" in base64.b64decode(v.partition(",")[2])[:16] for v in videos)
    maps = [v for t, v in page.tags if t == "img" and v["alt"].startswith("kept blocks")]
    assert len(maps) == 2 * 3  # layers x heads
    assert len({v["src"] for v in maps}) == 6
    assert page.count("rect") == 2  # steps
    frames = [v["alt"] for t, v in page.tags if t == "img" and "frame" in v["alt"]]
    assert {"dense, frame 1", "sparse, frame 3", "difference x 4, frame 5"} <= set(frames)
    assert len(frames) == 9


def test_layer_names_are_cut_to_what_differs():
    one = ["transformer.blocks.0.attn1", "transformer.blocks.1.attn1"]
    assert list(short_names(one).values()) == ["blocks.0", "blocks.1"]
    two = ["transformer.blocks.0.attn1", "transformer_2.blocks.0.attn1"]
    assert list(short_names(two).values()) == ["transformer.blocks.0", "transformer_2.blocks.0"]
    flux = ["transformer.transformer_blocks.0.attn", "transformer.single_transformer_blocks.0.attn"]
    assert list(short_names(flux).values()) == [
        "transformer_blocks.0",
        "single_transformer_blocks.0",
    ]
    assert short_names(["attn"]) == {"attn": "attn"}
    assert short_names([]) == {}


def test_without_a_dense_run(make_result):
    page = _page(make_result(compare=False))
    assert page.count("video") == 1
    assert "PSNR" not in page.words
    assert "first-use set-up included" in page.words


def test_an_image_has_no_player(make_result):
    page = _page(make_result(frames=1))
    assert page.count("video") == 0
    assert page.count("button") == 0
    assert page.count("img", alt="sparse: a red circle") == 1
    assert "flicker" not in page.words.partition("All figures")[0]


def test_every_control_has_a_name(make_result):
    page = _page(make_result())
    for tag, values in page.tags:
        if tag in ("video", "input"):
            assert values["aria-label"]
        if tag == "img":
            assert values["alt"]


def test_names_the_reasons_for_falling_back(make_result):
    assert "the mask was odd" in _page(make_result(fallbacks={"the mask was odd": 12})).words
    assert "None: every call" in _page(make_result()).words


def test_write_report(make_result, tmp_path):
    path = tmp_path / "r.html"
    write_report(make_result(prompt="Kreis äöü 円"), path, command="c", outputs={})
    assert "Kreis äöü 円" in path.read_text(encoding="utf-8")
