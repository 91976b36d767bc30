"""The table of pruning criteria: figures, what they say, and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pruning_table
import pytest
import torch
from pruning_figures import against, cell
from pruning_models import MODELS, SampleModel
from pruning_page import page
from pruning_rows_found import commands_of, expected, missing, rows_found
from pruning_verdict import verdict
from safetensors.torch import save_file

UNET = "shapes-unet"
SAMPLE = replace(MODELS[UNET], samples=4, seeds=2, criteria=("ecodiff", "magnitude", "wanda"))
COUNT = 4
CAPTION = "a red circle on a dark background"


def facts_of(
    criterion: str, ratio: float, seed: int, right: list[int], loss: float
) -> dict[str, Any]:
    """A row as `pruning_rows.py` writes it, in two runs."""
    drawn = {"shape": "circle", "color": "red", "background": "dark", "prompt": CAPTION}
    shapes = ("square", "circle")
    cases = [
        {**drawn, "shape": shapes[one], "right": bool(one), "overlap": one / 2} for one in right
    ]
    share = {"what": "x", "part": 1, "whole": 10, "share": ratio / 2}
    return {
        "schema": "sparsediff.pruning-row/1",
        "criterion": criterion,
        "ratio": ratio,
        "seed": seed,
        "weights": "abc",
        "settings": {"clean": 3, "name": criterion, "seed": seed},
        "call": {"num_inference_steps": 7},
        "times": {"masks": {"seconds": 30.0, "cpu_seconds": 12.0}},
        "runs": {
            "10": {"cpu_seconds": 6.0, "cases": cases[10:]},
            "2": {"cpu_seconds": 3.0, "cases": cases[2:10]},
            "0": {"cpu_seconds": 3.0, "cases": cases[:2]},
        },
        "given_up": {"heads": share, "ffn": share, "parameters": share},
        "loss": {"loss": loss, "dense": 0.1, "distance": loss - 0.1, "samples": 3, "times": [0.5]},
    }


def write(folder: Path, facts: dict[str, Any]) -> None:
    name = f"{UNET}-{facts['criterion']}-{facts['ratio']:g}-{facts['seed']}"
    (folder / f"{name}.json").write_text(json.dumps(facts))
    samples = torch.zeros(COUNT, 1, 3, 64, 64, dtype=torch.uint8)
    save_file({"samples": samples}, folder / f"{name}.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """EcoDiff and magnitude at 20 %, two seeds of EcoDiff, a row of Wanda that is not whole."""
    write(tmp_path, facts_of("whole", 0, 0, [1, 1, 1, 0], 0.1))
    write(tmp_path, facts_of("ecodiff", 0.2, 0, [1, 1, 0, 0], 0.2))
    write(tmp_path, facts_of("ecodiff", 0.2, 1, [1, 1, 1, 0], 0.24))
    write(tmp_path, facts_of("magnitude", 0.2, 0, [0, 1, 0, 0], 0.22))
    write(tmp_path, facts_of("magnitude", 0.2, 1, [0, 0, 0, 1], 0.23))
    write(tmp_path, facts_of("wanda", 0.2, 0, [1, 1, 1], 0.2))
    return tmp_path


def test_rows_that_are_not_whole_are_missing(folder: Path) -> None:
    found = rows_found(SAMPLE, folder)
    assert list(found) == [
        ("whole", 0.0, 0),
        *((name, 0.2, seed) for name in ("ecodiff", "magnitude") for seed in (0, 1)),
    ]
    assert len(expected(SAMPLE)) == 2 + 3 * 2 * 2
    lost = missing(SAMPLE, found)
    assert len(lost) == len(expected(SAMPLE)) - len(found)
    assert ("wanda", 0.2, 0) in lost
    commands = commands_of(SAMPLE, lost, folder)
    start = "python samples/tables/pruning_rows.py shapes-unet"
    assert f"{start} whole 0 1 --out {folder}" in commands
    assert f"{start} ecodiff 0.4 0 --out {folder}" in commands
    assert f"{start} wanda 0.2,0.4 0 --out {folder}" in commands
    assert len(commands) == 1 + 3 * 2
    fewer = rows_found(replace(SAMPLE, samples=3), folder)
    assert len(fewer["wanda", 0.2, 0]["cases"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "other"}, "different weights"),
        ({"call": {"num_inference_steps": 8}}, "different call"),
        ({"settings": {"clean": 3, "name": "x", "seed": 1, "iterations": 9}}, "different settings"),
        ({"schema": "else/1"}, "needed 'sparsediff.pruning-row/1'"),
    ],
)
def test_rows_that_do_not_belong_together(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    write(folder, facts_of("ecodiff", 0.2, 1, [1, 1, 1, 0], 0.24) | change)
    with pytest.raises(ValueError, match=message):
        rows_found(SAMPLE, folder)


def test_a_cell_is_mean_and_spread_over_seeds(folder: Path) -> None:
    rows = [facts for (name, *_), facts in rows_found(SAMPLE, folder).items() if name == "ecodiff"]
    found = cell(rows)
    assert found["accuracy"]["values"] == [0.5, 0.75]
    assert found["accuracy"]["mean"] == 0.625
    # Of three answers a sample two are right where one is not.
    assert found["answers"]["values"] == pytest.approx([10 / 12, 11 / 12], abs=1e-6)
    assert found["loss"]["mean"] == pytest.approx(0.22)
    assert found["loss"]["spread"] == pytest.approx(0.028284, abs=1e-6)  # 0.04 / sqrt(2)
    assert found["parameters"] == 0.1
    assert cell(rows[:1])["loss"]["spread"] is None


def test_pairs_are_of_the_same_seed_and_sample() -> None:
    ours = {n: facts_of("ecodiff", 0.2, n, [1] * 4, 0.2 + n) for n in (0, 1, 2)}
    others = {n: facts_of("magnitude", 0.2, n, [0, 0, 0, 1], 0.21 + n) for n in (0, 1)}
    for rows in (ours, others):
        for facts in rows.values():
            cases = [c for key in ("0", "2") for c in facts["runs"][key]["cases"]]
            facts["cases"] = [c | {"answers": (2 + c["right"]) / 3} for c in cases]
    found = against(ours, others)
    assert found is not None
    assert found["seeds"] == [0, 1]
    # 6 : 0 by the exact sign test: 2 / 2**6.
    assert found["right"] == {"wins": 6, "losses": 0, "ties": 2, "p": 0.0312}
    assert (found["points"], found["loss_lower_in"]) == (75, 2)
    assert (found["answers"], found["answers_points"]) == (found["right"], 25)
    assert found["beats"] == {"accuracy": 1, "loss": 1}
    turned = against(others, ours)
    assert turned is not None
    assert turned["beats"] == {"accuracy": -1, "loss": -1}
    one = against({0: ours[0]}, others)
    assert one is not None
    assert one["beats"] == {"accuracy": 0, "loss": 0}, "3 : 0 and one seed are not certain"
    assert against(ours, {}) is None


def timed(folder: Path, weights: str = "abc") -> None:
    pairs = [[1.0, 0.9], [2.0, 1.6], [1.0, 0.7]]
    row = {"criterion": "ecodiff", "ratio": 0.2, "parameters": 0.9, "rounds": pairs}
    model = {
        "weights": weights,
        "command": "python time.py",
        "machine": {"device": "a machine", "load": 0.1},
        "rows": {"whole": {"rounds": [[1.0, 1.0]]}, f"{UNET}-ecodiff-0.2-0": row},
    }
    document = {"schema": "x", "models": {UNET: model}}
    (folder / "times.json").write_text(json.dumps(document))


def test_the_page(folder: Path) -> None:
    samples: dict[str, SampleModel] = {UNET: SAMPLE}
    timed(folder)
    told, rows = pruning_table.document(samples, folder, "python table.py")
    told = json.loads(json.dumps(told))
    text = page(told, image="picture.png")
    assert "| - | the whole model | 0.0 % | 75.0 | 91.7 | 0.1000 | 0.0000 | 1 | 30 |" in text
    shown = (
        "| 20 % | EcoDiff | 10.0 % | 62.5 ± 17.7 | 87.5 ± 5.9 | 0.2200 ± 0.0283 | 0.1200 ± 0.0283 |"
    )
    assert shown in text
    assert (
        "| 20 % | magnitude | +37.5 | 4 : 1 | 0.38 | open | +12.5 | 4 : 1 | 0.38 | -2.2 % |" in text
    )
    assert "**Missing**: 9 of 14 rows" in text
    assert "`shapes-unet-wanda-0.2-0`" in text
    assert "**EcoDiff is not shown to beat magnitude, Wanda and random everywhere.**" in text
    assert "wins 0 and loses 0, 2 are open, and for 10 rows are missing." in text
    # 1 - median(0.9, 0.8, 0.7) of the time for 0.1 of the parameters.
    assert "10.0 % of the parameters less, 20.0 % of the time" in text
    assert "(2.00 of the parameters' gain)" in text
    assert "| shapes-unet | EcoDiff | 20 % | 1.0000 | 0.900 | 0.800 (0.750 to 0.850) | 3 |" in text
    assert "python time.py\npython table.py\n" in text
    assert "The rows took 2.0 minutes (shapes-unet)" in text  # 5 rows of 24 seconds
    drawn = pruning_table.picture(rows, folder)
    assert drawn is not None
    assert drawn.size == (210 + COUNT * 64, 3 * 68)  # whole, EcoDiff, magnitude of the first seed
    timed(folder, weights="other")
    with pytest.raises(ValueError, match="times of other weights"):
        pruning_table.document(samples, folder, "c")


def test_there_may_be_nothing(tmp_path: Path) -> None:
    told, rows = pruning_table.document(MODELS, tmp_path, "python table.py")
    text = page(told, image=None)
    assert "is not known yet" in text
    assert text.count("No row is there yet.") == text.count("cannot be compared yet") == len(MODELS)
    assert "Not measured yet." in text
    assert "![" not in text
    assert pruning_table.picture(rows, tmp_path) is None


def claimed(*signs: tuple[int | None, int | None]) -> str:
    """The verdict where EcoDiff against the three is so, by accuracy and by loss, at one ratio."""
    rivals = zip(("magnitude", "wanda", "random"), signs, strict=True)
    found = {
        name: None if a is None else {"beats": {"accuracy": a, "loss": b}}
        for name, (a, b) in rivals
    }
    return verdict({"models": {UNET: {"ratios": {"0.2": {"against": found}}}}})


@pytest.mark.parametrize(
    ("signs", "said", "unsaid"),
    [
        (((1, 1), (1, 1), (1, 1)), ["**EcoDiff beats", "in all 6"], "not"),
        (
            ((1, 1), (0, 1), (1, 1)),
            ["is not shown to beat", "wins 5 and loses 0, 1 are open"],
            "in all",
        ),
        (((-1, -1), (-1, 1), (-1, 0)), ["loses more often than it wins"], "everywhere"),
        (
            ((1, 1), (None, None), (1, 1)),
            ["is not known yet", "for 2 rows are missing"],
            "does not",
        ),
        (((1, -1), (None, None), (1, 1)), ["does not beat", "everywhere"], "in all"),
        (((None, None),) * 3, ["is not known yet**: no rows"], "*  "),
    ],
)
def test_claims_follow_from_the_figures(signs: Any, said: list[str], unsaid: str) -> None:
    text = claimed(*signs)
    assert all(words in text for words in said), text
    assert unsaid not in text, text


def test_every_rival_is_named_by_measure() -> None:
    text = claimed((1, -1), (0, 1), (1, 0))
    assert "by caption accuracy: beats magnitude and random, open against Wanda" in text
    assert "by denoising loss: beats Wanda, loses to magnitude, open against random" in text
