"""The page of a plan: whole for a search's folder, honest about what a bare plan lacks, and inert."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_reader import Page
from PIL import Image
from plan_files import BLOCK, EVIDENCE, GRID, plan_of, with_heads
from tiny_pipelines import wan

from sparsediff.cli import main
from sparsediff.kernels import BlockMask
from sparsediff.media import read_frames, write_frames
from sparsediff.pattern_search import profiles, result
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.plan_report import PlanReport
from sparsediff.plan_sweep import PlanSweep
from sparsediff.plans import PatternPlan
from sparsediff.report_pages.head_maps import pattern_map
from sparsediff.report_pages.mode_map import LETTERS
from sparsediff.report_pages.plan_page import plan_page
from sparsediff.search import PlannedHead
from sparsediff.search.offline.profile import AttentionProfile, ProfileRecord
from sparsediff.search.patterns.pattern import (
    MODES,
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_mask import pattern_mask
from sparsediff.search.patterns.token_reorder import by_place

EVIL = '</script><script>alert("1")</script> & <b>"bold"</b>'
LAYERS, HEADS, PARTS, SIDE, CANDIDATES = 3, 2, 2, 6, 4


@pytest.fixture(scope="module")
def plan() -> PatternPlan:
    return plan_of(wan())


@pytest.fixture
def bare(plan: PatternPlan, tmp_path: Path) -> Path:
    plan.save_pretrained(tmp_path / "plan")
    return tmp_path / "plan"


@pytest.fixture
def searched(bare: Path) -> Path:
    """The plan with all that a search leaves beside it, as the search's own classes write it."""
    folder = RunFolder(path=bare)
    folder.write_settings(
        SearchSettings(
            model="m",
            prompts=EVIDENCE.prompts,
            budget=Budget(kind="density", value=0.3),
            dtype="float32",
            device="cpu",
        )
    )
    for prompt in range(2):
        folder.units.save(profiles.STAGE, prompt, profile_unit(prompt), 1.0)
    noise = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(LAYERS):
        errors = torch.rand(PARTS, CANDIDATES, HEADS, generator=noise).double() + 0.01
        errors[:, 0] = 0
        shares = torch.linspace(1, 0.1, CANDIDATES)[None, :, None].expand_as(errors).double()
        tensors |= {f"{layer}.errors": errors, f"{layer}.costs": shares * 0.9 + 0.1}
        tensors[f"{layer}.densities"] = shares
    folder.write_tensors(result.TRIALS, tensors)
    found = {"schema": result.SCHEMA, "lambda": 0.4, "limit": None, "probes": []}
    folder.write_json("search.json", found)
    folder.write_json("costs.json", {"schema": "sparsediff.search-costs/1", "costs": COSTS})
    return bare


COSTS = {"2x12": {"flops": "as asked"}}


def profile_unit(prompt: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(prompt)
    record = ProfileRecord()
    for layer in range(LAYERS):
        profile = AttentionProfile.empty(PARTS, HEADS, SIDE)
        for part in range(PARTS):
            profile.add(part, torch.rand(1, HEADS, SIDE, SIDE, generator=noise), GRID, BLOCK)
        record.layers[layer] = profile
    state = record.state()
    sizes = (GRID.frames, GRID.height, GRID.width, GRID.text_before, GRID.text_after)
    state |= {"grid": torch.tensor(sizes), "steps": torch.tensor(4)}
    if prompt == 0:
        state["frames"] = torch.randint(0, 255, (5, 12, 14, 3), dtype=torch.uint8, generator=noise)
    return state


def page_of(folder: Path, **arguments: Any) -> Page:
    return Page(plan_page(PlanReport.of(folder, **arguments)))


def pixels(uri: str) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture)


def cells(page: Page) -> list[dict[str, Any]]:
    return [v for t, v in page.tags if t == "td" and str(v.get("class", "")).startswith("m-")]


def test_the_map_shows_every_head_of_every_part(searched: Path, plan: PatternPlan) -> None:
    page = page_of(searched)
    heads = [h for bucket in plan.table.buckets for layer in bucket for h in layer]
    assert [c["class"] for c in cells(page)] == [f"m-{MODES[type(h.pattern)]}" for h in heads]
    assert len(heads) == PARTS * LAYERS * HEADS
    assert set(LETTERS) == set(MODES.values())
    text = plan_page(PlanReport.of(searched))
    letters = re.findall(r'<td class="m-[a-z-]+" title="[^"]*">(.)</td>', text)
    assert letters == [LETTERS[MODES[type(h.pattern)]] for h in heads]
    first = cells(page)[0]["title"]
    assert first.startswith("blocks.0, head 0: diagonal, 0.25 periods")
    assert "density 0.444; error 0.1; cost 0.444" in first
    assert "25% to 60% of the run: step 2" in page.words
    assert "60% to 100% of the run: steps 3 to 4" in page.words


def test_every_head_has_its_attention_beside_its_pattern(searched: Path) -> None:
    page = page_of(searched)
    maps = [v for t, v in page.tags if t == "img" and v["alt"].startswith("attention of head")]
    assert len(maps) == PARTS * LAYERS * HEADS
    drawn = pixels(maps[0]["src"])
    assert drawn.shape == (SIDE, 2 * SIDE + 2, 4)
    # Left the mean over both prompts, right the pattern.
    first, second = (profile_unit(prompt)["0.maps"][0, 0] for prompt in (0, 1))
    strong = ((first + second) / (first + second).max()).sqrt() * 255
    assert np.abs(drawn[:, :SIDE, 3] - strong.numpy()).max() <= 1
    mask = pattern_mask([Diagonal(half_width=0.25)], GRID, BLOCK).to_dense()[0, 0]
    assert np.array_equal(drawn[:, SIDE + 2 :, 3] > 0, mask.numpy())
    assert not drawn[:, SIDE : SIDE + 2, 3].any()


@pytest.mark.parametrize(
    "pattern",
    [
        Full(),
        Skip(),
        Diagonal(half_width=0.3),
        MultiDiagonal(half_widths=(0.5, 0.1)),
        MultiDiagonal(half_widths=(0.2,), everywhere=True),
        Stripe(columns=(0, 3)),
        Online(density=0.4),
    ],
    ids=lambda p: MODES[type(p)],
)
def test_a_pattern_map_is_the_mask(pattern: Any) -> None:
    grid = replace(GRID, text_after=5)
    mask: BlockMask = pattern_mask([pattern], grid, BLOCK)
    blocks = mask.q_blocks
    assert torch.equal(pattern_map(pattern, grid, BLOCK, blocks), mask.to_dense()[0, 0].float())


def test_a_map_of_many_blocks_is_estimated() -> None:
    grid = replace(GRID, frames=300, text_before=9)
    pattern = MultiDiagonal(half_widths=(40.0, 0.1))
    whole = pattern_mask([pattern], grid, BLOCK).to_dense()[0, 0].float()
    assert len(whole) > 32 * 16, "more blocks than are looked at"
    cells = torch.nn.functional.adaptive_avg_pool2d(whole[None], 32)[0]
    found = pattern_map(pattern, grid, BLOCK, 32)
    torch.testing.assert_close(found, cells, atol=0.15, rtol=0)
    assert float((found - cells).abs().mean()) < 0.01


def test_a_reordered_pattern_is_shown_in_the_order_of_the_sequence() -> None:
    """Token by token: the pair is computed if the blocks of its new places are."""
    moved = MultiDiagonal(half_widths=(0.125,), everywhere=True, by_place=True)
    mask = pattern_mask([moved], GRID, BLOCK).to_dense()[0, 0]
    place = by_place(GRID).argsort() // BLOCK
    tokens = mask[place][:, place].float()
    expected = tokens.view(6, 8, 6, 8).mean(dim=(1, 3))
    found = pattern_map(moved, GRID, BLOCK, 6)
    torch.testing.assert_close(found, expected)
    assert float(found.mean()) == pytest.approx(float(mask.float().mean()))
    assert not torch.equal(found, mask.float())


def test_error_against_cost(searched: Path) -> None:
    report = PlanReport.of(searched)
    sweep = report.sweep
    assert sweep is not None
    costs = [point.cost for point in sweep.points]
    errors = [point.error for point in sweep.points]
    assert len(costs) > 5
    assert costs == sorted(costs)
    assert errors == sorted(errors, reverse=True), "no plan is worse and dearer than another"
    assert errors[-1] == 0, "full attention"
    assert len(sweep.alike) == CANDIDATES
    assert sweep.chosen is not None
    assert sweep.chosen.price == 0.4
    for alike in sweep.alike:
        better = [p for p in sweep.points if p.cost <= alike.cost + 1e-9]
        assert min(p.error for p in better) <= alike.error + 1e-9
    page = page_of(searched)
    assert page.count("circle", **{"class": "chosen"}) == 1
    assert page.count("circle", **{"class": "point"}) == len(sweep.points)
    assert page.count("circle", **{"class": "alike"}) == CANDIDATES


def test_the_chosen_plan_lies_on_the_line() -> None:
    """Two candidates: at price 1 the cheap one wins wherever its error is below what it saves."""
    errors = torch.tensor([[[0.0, 0.0], [0.3, 0.8]]], dtype=torch.float64)
    costs = torch.tensor([[[1.0, 1.0], [0.5, 0.5]]], dtype=torch.float64)
    tensors = {"0.errors": errors, "0.costs": costs, "0.densities": costs}
    sweep = PlanSweep.of(tensors, [3], 1.0)
    assert sweep.chosen is not None
    assert (sweep.chosen.cost, sweep.chosen.error) == (0.75, 0.15)
    assert [(p.cost, round(p.error, 3)) for p in sweep.points] == [
        (0.5, 0.55),
        (0.75, 0.15),
        (1.0, 0.0),
    ]


def test_frames_of_a_search_are_the_dense_ones(searched: Path) -> None:
    page = page_of(searched)
    frames = [v for t, v in page.tags if t == "img" and ", frame " in v["alt"]]
    assert [v["alt"] for v in frames] == ["dense, frame 1", "dense, frame 3", "dense, frame 5"]
    kept = profile_unit(0)["frames"][2].numpy()
    assert np.array_equal(pixels(frames[1]["src"]), kept)
    assert "prompt 1 of the calibration: a red circle" in page.words
    assert "--plan DIR --compare" in page.words


def test_frames_dense_beside_the_plans(searched: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    ramp = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 16, 16, 3)
    write_frames(ramp, videos / "dense.mp4", fps=8)
    write_frames(1 - ramp, videos / "sparse.mp4", fps=8)
    page = page_of(searched, videos=videos)
    frames = {v["alt"]: v["src"] for t, v in page.tags if t == "img" and ", frame " in v["alt"]}
    assert list(frames)[:3] == ["dense, frame 1", "plan, frame 1", "difference x 4, frame 1"]
    assert len(frames) == 9
    assert pixels(frames["dense, frame 5"]).mean() > 250
    assert pixels(frames["plan, frame 5"]).mean() < 5


def test_videos_come_back(tmp_path: Path) -> None:
    frames = torch.rand(4, 8, 10, 3, generator=torch.Generator().manual_seed(0))
    frames = frames.mean(dim=(1, 2, 3), keepdim=True).expand_as(frames)
    found = read_frames(write_frames(frames, tmp_path / "a.mp4", fps=4))
    torch.testing.assert_close(found, frames, atol=0.02, rtol=0)
    picture = read_frames(write_frames(frames[:1], tmp_path / "a.png", fps=4))
    torch.testing.assert_close(picture, frames[:1], atol=1 / 255, rtol=0)


def test_a_bare_plan_says_what_is_missing(bare: Path) -> None:
    report = PlanReport.of(bare)
    page = Page(plan_page(report))
    assert len(cells(page)) == PARTS * LAYERS * HEADS
    assert page.count("svg") == 0
    assert page.count("img") == 0
    assert [words.split(":")[0] for words in report.missing] == [
        "No figures of the search",
        "No attention maps",
        "No trials",
        "No costs",
        "No videos",
    ]
    for words in report.missing:
        assert words in page.words
    assert "cost" not in cells(page)[0]["title"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("search.json", b"{", "No figures of the search: search.json"),
        ("search.json", b'{"schema": "other"}', "No figures of the search"),
        (
            "search.json",
            json.dumps(
                {"schema": result.SCHEMA, "lambda": 1, "limit": None, "probes": [{"density": "x"}]}
            ).encode(),
            "a probe is no density",
        ),
        ("trials.safetensors", b"not tensors", "No trials: trials.safetensors is damaged"),
        ("costs.json", b"[]", "No costs"),
        ("journal.jsonl", b"no entry\nmore\n", "No attention maps"),
    ],
)
def test_damaged_parts_are_left_out_and_named(
    searched: Path, name: str, content: bytes, words: str
) -> None:
    (searched / name).write_bytes(content)
    report = PlanReport.of(searched)
    assert any(words in missing for missing in report.missing), report.missing
    assert len(cells(Page(plan_page(report)))) == PARTS * LAYERS * HEADS


def test_profiles_of_another_model_are_not_shown(searched: Path, plan: PatternPlan) -> None:
    from sparsediff.pattern_search.units import Units

    state = {k: v for k, v in profile_unit(0).items() if not k.startswith("2.")}
    for prompt in (0, 1):
        Units(searched).save(profiles.STAGE, prompt, state, 1.0)
    report = PlanReport.of(searched)
    assert report.profile is None
    assert any("of another model" in words for words in report.missing)


def test_nothing_is_fetched(searched: Path) -> None:
    text = plan_page(PlanReport.of(searched))
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert "@import" not in text
    assert "url(" not in text
    policy = next(v["content"] for t, v in page.tags if v.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_texts_are_escaped(plan: PatternPlan, tmp_path: Path) -> None:
    evidence = replace(
        plan.evidence,
        model=EVIL,
        command=EVIL,
        cost_source=EVIL,
        device=EVIL,
        prompts=(EVIL,),
        versions={EVIL: EVIL},
    )
    plain = Page(plan_page(PlanReport(name="x", plan=plan)))
    spoilt = replace(plan, evidence=evidence)
    page = Page(plan_page(PlanReport(name=EVIL, plan=spoilt, missing=(EVIL,))))
    assert page.words.count(EVIL) >= 7
    assert page.count("script") == plain.count("script")
    assert page.count("b") == plain.count("b")
    assert json.loads(page.scripts["application/json"])["missing"] == [EVIL]


def test_the_command(searched: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(searched)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("sparse plan: WanTransformer3DModel")
    assert f"page: {searched / 'plan.html'}" in said
    assert "not shown" not in said
    written = (searched / "plan.html").read_text(encoding="utf-8")
    assert written.startswith("<!doctype html>")
    other = tmp_path / "other.html"
    assert main(["report", str(searched), "--json", "--output", str(other)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.plan-report/1"
    assert found["output"] == str(other)
    assert found["heads"][0][0][0] == {"mode": "diagonal", "density": 0.4444, "error": 0.1}
    inside = json.loads(Page(other.read_text(encoding="utf-8")).scripts["application/json"])
    assert inside == {key: value for key, value in found.items() if key != "output"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "plan.json").unlink(), "has not ended"),
        (lambda folder: (folder / "plan.json").write_text("{"), "cannot be used"),
    ],
)
def test_without_a_plan(
    searched: Path, capsys: pytest.CaptureFixture[str], spoil: Any, words: str
) -> None:
    spoil(searched)
    assert main(["report", str(searched)]) == 1
    assert words in capsys.readouterr().err
    assert not (searched / "plan.html").exists()


def test_what_cannot_be_read_or_written(
    searched: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["report", str(searched), "-o", str(tmp_path / "no" / "p.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main(["report", str(searched), "--videos", str(tmp_path)]) == 1
    assert "holds no dense and sparse video" in capsys.readouterr().err


def test_a_plan_of_one_mode(plan: PatternPlan) -> None:
    full = replace(plan, table=with_heads(plan.table, lambda _: PlannedHead(pattern=Full())))
    page = Page(plan_page(PlanReport(name="x", plan=full)))
    assert {c["class"] for c in cells(page)} == {"m-full"}
    assert "error" not in cells(page)[0]["title"]
