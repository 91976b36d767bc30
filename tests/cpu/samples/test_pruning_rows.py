"""Rows of the pruning table: masks as the command makes them, whole when killed, timed in pairs."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pruning_masks
import pruning_models
import pruning_rows
import pruning_time
import pytest
import torch
from pictures import every_caption
from pruning_masks import Loaded, Row
from pruning_models import MODELS, SampleModel, lines_of
from pruning_samples import judged
from safetensors.torch import load_file
from shapes import COLOR_NAMES, SHAPES

from sparsediff.cli import main
from sparsediff.prune.masks import Masks

ROOT = Path(__file__).resolve().parents[3]
SHORT: dict[str, Any] = {"samples": 2, "batch": 1, "steps": 1, "clean": 1, "seeds": 1}
UNET, WAN = "shapes-unet", "shapes-wan"


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Few samples in one step, EcoDiff learns in one iteration; a model is loaded once."""
    real, kept = Loaded.of, dict[tuple[str, int], Loaded]()

    def once(_: type[Loaded], sample: SampleModel) -> Loaded:
        key = sample.name, sample.steps
        if key not in kept:
            kept[key] = real(sample)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loaded, "of", classmethod(once))
        for name, sample in MODELS.items():
            limits = dict.fromkeys(sample.limits, 1)
            learning = {**sample.learning, "iterations": 1}
            patch.setitem(MODELS, name, replace(sample, **SHORT, limits=limits, learning=learning))
        yield


def run(script: Any, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__file__, *words])
        script.main()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the whole UNet and of one that magnitude cut."""
    folder = tmp_path_factory.mktemp("rows")
    for criterion, ratio in (("whole", "0"), ("magnitude", "0.2")):
        run(pruning_rows, UNET, criterion, ratio, "0", "--out", str(folder))
    return folder


def facts_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_a_row_says_what_was_cut_and_what_it_costs(made: Path) -> None:
    whole, cut = (facts_of(made, f"{UNET}-{name}-0") for name in ("whole-0", "magnitude-0.2"))
    assert whole["schema"] == cut["schema"] == "sparsediff.pruning-row/1"
    assert (whole["loss"]["loss"], whole["loss"]["distance"]) == (cut["loss"]["dense"], 0)
    assert cut["loss"]["distance"] > 1e-4
    assert whole["given_up"]["parameters"]["part"] == 0
    samples = [load_file(made / f"{one}.safetensors")["samples"] for one in names(made)]
    assert {(tuple(one.shape), one.dtype) for one in samples} == {((2, 1, 3, 64, 64), torch.uint8)}
    assert not torch.equal(samples[0], samples[1]), "the cut model generated"
    for facts in (whole, cut):
        cases = [case for run in facts["runs"].values() for case in run["cases"]]
        asked = MODELS[UNET].requests(0)
        assert [(case["prompt"], case["seed"]) for case in cases] == asked
        assert set(facts["times"]) == ({"loss"} if facts is whole else {"loss", "masks"})
    masks = Masks.load(made / f"{UNET}-magnitude-0.2-0.masks.safetensors")
    assert cut["given_up"]["heads"]["part"] == sum(
        int((~kept).sum()) for key, kept in masks.kept.items() if key.startswith("heads/")
    )

    assert type(Loaded.of(MODELS[UNET]).pipe.unet).__name__ == "UNet2DConditionModel", "put back"


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json") if path.stem != "times")


def test_a_row_goes_on_where_it_was(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (UNET, "magnitude", "0.2", "0", "--out", str(tmp_path))
    real, calls = pruning_rows.generate, []

    def killed(*given: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(real(*given))
        return calls[0]

    monkeypatch.setattr(pruning_rows, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(pruning_rows, *words)
    name = f"{UNET}-magnitude-0.2-0"
    assert torch.equal(load_file(tmp_path / f"{name}.safetensors")["samples"], calls[0])
    before = facts_of(tmp_path, name)

    def again(*given: Any, **named: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(pruning_rows, "generate", real)
    monkeypatch.setattr(pruning_rows, "loss_of", again)
    monkeypatch.setattr(pruning_masks, "prune", again)
    run(pruning_rows, *words)
    after = facts_of(tmp_path, name)
    assert [after[key] for key in ("loss", "times")] == [before[key] for key in ("loss", "times")]
    assert sorted(after["runs"]) == ["0", "1"]
    unbroken = load_file(made / f"{name}.safetensors")["samples"]
    assert torch.equal(load_file(tmp_path / f"{name}.safetensors")["samples"], unbroken)
    endings = (".json", ".masks.safetensors", ".safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name + end for end in endings]
    with pytest.raises(ValueError, match="begun with call"):
        run(pruning_rows, *words, "--steps", "2")


@pytest.mark.parametrize("criterion", ["ecodiff", pytest.param("wanda", marks=pytest.mark.slow)])
def test_the_masks_are_the_commands(
    criterion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_rows, "_generate", lambda *given: None)
    monkeypatch.setattr(pruning_rows, "loss_of", lambda *given: {})
    run(pruning_rows, UNET, criterion, "0.2,0.4", "3", "--out", str(tmp_path / "rows"))
    name = f"{UNET}-{criterion}-0.4-3"
    command = shlex.split(facts_of(tmp_path / "rows", name)["same_masks"])
    command[command.index("--out") + 1] = str(tmp_path / "out")
    monkeypatch.chdir(ROOT)
    assert main([*command[1:], "--quiet"]) == 0
    ours = Masks.load(tmp_path / "rows" / f"{name}.masks.safetensors").kept
    theirs = Masks.load(tmp_path / "out/unet/pruning_masks.safetensors").kept
    assert {key for key, kept in theirs.items() if not kept.all()}
    assert all(torch.equal(kept, ours[key]) for key, kept in theirs.items())
    assert all(kept.all() for key, kept in ours.items() if key not in theirs)
    if criterion == "ecodiff":  # one training of one iteration for both ratios
        (log,) = (tmp_path / "rows/learning").glob(f"{UNET}-3-*/log.jsonl")
        assert len(log.read_text().splitlines()) == 1


def test_a_row_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame of them: a quarter of a second where 17 would take many."""
    real = SampleModel.call
    monkeypatch.setattr(SampleModel, "call", lambda self: real(self) | {"num_frames": 1})
    run(pruning_rows, WAN, "magnitude", "0.4", "0", "--samples", "1", "--out", str(tmp_path))
    facts = facts_of(tmp_path, f"{WAN}-magnitude-0.4-0")
    (case,) = facts["runs"]["0"]["cases"]
    assert case["motion"] in {"still", "none"}, "one frame shows no motion"
    assert facts["loss"]["loss"] != facts["loss"]["dense"]
    assert 0.3 < facts["given_up"]["parameters"]["share"] < 0.4


def test_a_sample_is_right_where_all_is() -> None:
    model = MODELS[UNET]
    loaded = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    loaded[:, 0, 20:44, 20:44] = 225  # a red square on black
    loaded[:, 1:, 20:44, 20:44] = 45
    assert judged(model, "a red square on a dark background", loaded)["right"]
    for other in ("a red circle on a dark background", "a red square on a light background"):
        assert not judged(model, other, loaded)["right"]


@pytest.mark.parametrize(
    ("criterion", "ratio"), [("whole", "0.2"), ("magnitude", "0"), ("ecodiff", "0,0.2")]
)
def test_ratios_are_refused(criterion: str, ratio: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(pruning_rows, UNET, criterion, ratio, "0", "--out", str(tmp_path))
    assert not list(tmp_path.glob("*.safetensors"))


def test_prompts_are_balanced_and_none_is_calibrated_on() -> None:
    judged_by, seen = lines_of("picture_prompts.txt"), lines_of("picture_calibration.txt")
    assert {*judged_by, *seen} <= {*every_caption()}
    assert len({*judged_by, *seen}) == len(judged_by) + len(seen) == 48 + 16
    pairs = {(line.split()[2], line.split()[1]) for line in judged_by}
    assert pairs == {*product(SHAPES, COLOR_NAMES)}
    assert sum("dark" in line for line in judged_by) == 24
    assert {line.split()[2] for line in seen} == {*SHAPES}
    videos, calibration = lines_of("prompts.txt"), lines_of("calibration.txt")
    assert not {*videos} & {*calibration}
    for sample in MODELS.values():
        assert len(lines_of(sample.prompts)) < pruning_models.FIRST_SEED, "seeds never meet"


def test_times(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    words = (UNET, "--runs", "2", "--rows", str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with pytest.raises(SystemExit):
        run(pruning_time, *words)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    run(pruning_time, *words)
    found = json.loads((tmp_path / "times.json").read_text())
    rows = found["models"][UNET]["rows"]
    name = f"{UNET}-magnitude-0.2-0"
    assert list(rows) == ["whole", name]
    for row in rows.values():
        assert [len(times) for times in row["rounds"]] == [2, 2]
        assert min(map(min, row["rounds"])) > 0
    share = facts_of(made, name)["given_up"]["parameters"]["share"]
    assert rows[name]["parameters"] == pytest.approx(1 - share)
    facts = facts_of(made, name) | {"weights": "another model's"}
    (tmp_path / f"{name}.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="made of other weights"):
        run(pruning_time, *words)


def test_a_model_is_timed_against_the_one_that_was_cut(made: Path) -> None:
    """Both are called, in turns, and the second is the smaller one."""
    sample = MODELS[UNET]
    loaded = Loaded.of(sample)
    row = Row(model=sample, criterion="magnitude", ratio=0.2, seed=0)
    cut = pruning_time.cut_model(row, loaded, made)
    calls: list[str] = []
    hooks = [
        model.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, model in (("whole", loaded.model), ("cut", cut))
    ]
    pruning_time.seconds_of(loaded.model, cut, loaded.batch, 2)
    for hook in hooks:
        hook.remove()
    assert calls == ["whole", "cut"] * 3  # the first pair is not counted
    weights = [sum(p.numel() for p in model.parameters()) for model in (loaded.model, cut)]
    assert weights[1] < weights[0]
