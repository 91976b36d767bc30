"""`sparsediff prune`: from a pipeline to a smaller one, and what is refused before it."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from tiny_training import forget_accelerate

import sparsediff
from sparsediff.cli import main, parser, prune_arguments
from sparsediff.prune.criteria.registry import CRITERIA
from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import KINDS

UNET = "samples/models/shapes-unet"
SMALL = ["--steps", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _accelerate():
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle on a dark background\na blue ring on a light background\n")
    return str(path)


def _size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_from_a_pipeline_to_a_smaller_one(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["prune", UNET, "--objective", "magnitude", "--ratio", "0.25", *SMALL]
    assert main([*arguments, "--out", str(out), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.prune/1"
    assert found["checked"] is True
    (sample,) = found["samples"]
    assert len(sample["dense_seconds"]) == len(sample["pruned_seconds"]) == 3
    assert found["given_up"]["heads"]["share"] == 0.25
    assert [
        sum(x[n] for x in found["layers"] if x["kind"] == "heads") for n in ("kept", "units")
    ] == [
        63,
        84,
    ]

    pipe = DiffusionPipeline.from_pretrained(out)
    whole = UNet2DConditionModel.from_pretrained(f"{UNET}/unet")
    assert type(pipe.unet) is sparsediff.PrunedUNet2DConditionModel
    assert _size(whole) - _size(pipe.unet) == found["given_up"]["parameters"]["part"] > 0
    pipe.set_progress_bar_config(disable=True)
    again = json.loads((out / "generation.json").read_text())["call"]
    image = pipe("a red circle", output_type="pt", **{**again, "num_inference_steps": 2}).images
    assert image.shape == (1, 3, 64, 64)
    assert bool(image.isfinite().all())

    page = (out / "pruning.html").read_text()
    assert "63 of 84" in page
    assert page.count("<img") == 3  # before, pruned, difference
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_pruned_pipeline_is_pruned_again(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ["--device", "cpu", "--objective", "random", "--samples", "0", "--quiet"]
    assert main(["prune", UNET, *arguments, "--out", str(first)]) == 0
    more = ["--target", "blocks", "--seed", "1"]
    assert main(["prune", str(first), *arguments, *more, "--out", str(second)]) == 0
    capsys.readouterr()
    masks = [Masks.load(f / "unet" / "pruning_masks.safetensors").kept for f in (first, second)]
    assert {key for key in masks[0]} < {key for key in masks[1]}  # of the original, both times
    assert sum(not bool(v.all()) for k, v in masks[1].items() if k.startswith("blocks/")) == 2
    assert _size(DiffusionPipeline.from_pretrained(second).unet) < _size(
        DiffusionPipeline.from_pretrained(first).unet
    )


def test_masks_are_learnt_and_the_page_shows_how(prompts, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["prune", UNET, "--prompts", prompts, "--out", str(out), *SMALL, "--samples", "0"]
    assert main([*arguments, "--iterations", "2", "--accumulation", "1", "--json"]) == 0
    printed, said = capsys.readouterr()
    found = json.loads(printed)
    assert found["criterion"]["name"] == "ecodiff"
    assert found["criterion"]["steps"] == 2
    assert [line["iteration"] for line in found["curve"]] == [1, 2]
    assert "ecodiff: 2 of 2" in said
    assert (out / "pruning.html").read_text().count("<polyline") == 4


def test_masks_that_start_from_fishers(prompts, tmp_path, capsys):
    """Two samples alone, and before an iteration; the page of the first shows no training."""
    few = ["--fisher-draws", "2", "--samples", "0", "--json"]
    found = {}
    for name, more in {
        "fisher": ["--objective", "fisher"],
        "ecodiff": ["--start", "fisher", "--iterations", "1", "--accumulation", "1"],
    }.items():
        out = tmp_path / name
        arguments = ["prune", UNET, "--prompts", prompts, "--out", str(out), *SMALL]
        assert main([*arguments, *few, *more]) == 0
        printed, said = capsys.readouterr()
        found[name] = json.loads(printed)
        assert f"{name}: 2 of {2 if name == 'fisher' else 3}" in said
        assert ("<polyline" in (out / "pruning.html").read_text()) == (name == "ecodiff")
    assert found["ecodiff"]["criterion"]["start"] == "fisher"
    assert found["fisher"]["criterion"]["fisher_along"] == "both"


def test_a_model_without_its_pipeline(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prune", f"{UNET}/unet", "--objective", "magnitude", "--out", str(out)]) == 0
    assert "parameters" in capsys.readouterr().out
    model = sparsediff.PrunedUNet2DConditionModel.from_pretrained(out)
    assert _size(model) < _size(UNet2DConditionModel.from_pretrained(f"{UNET}/unet"))
    assert "computes what the masked one does" in (out / "pruning.html").read_text()


def test_the_flags_are_the_options_of_every_objective():
    assert set(prune_arguments.OBJECTIVES) == set(CRITERIA)
    assert tuple(prune_arguments.KINDS) == KINDS
    for name, flags in prune_arguments.OPTIONS.items():
        assert set(flags) == set(CRITERIA[name].options()), name
    commands = next(a for a in parser()._actions if a.dest == "command")
    known = {action.dest for action in commands.choices["prune"]._actions}
    assert {flag for flags in prune_arguments.OPTIONS.values() for flag in flags} <= known


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--objective", "wanda"], "needs --prompts FILE"),
        (["--objective", "magnitude", "--beta", "1"], "--beta changes nothing"),
        (["--objective", "magnitude", "--resume"], "learns nothing"),
        (["--objective", "random", "--ratio", "1"], "between 0 and 1"),
        (["--objective", "magnitude", "--spread", "0.1"], "it is of owl"),
        (
            ["--objective", "magnitude", "--steps", "3", "--samples", "0"],
            "ecodiff, fisher, wanda, owl",
        ),
        (["--objective", "random", "--prompts", "P", "--samples", "0"], "runs nothing"),
        (
            ["--prompts", "P", "--fisher-draws", "3"],
            "where all gates start alike; add --start fisher",
        ),
        (
            ["--objective", "fisher", "--prompts", "P", "--start", "fisher"],
            "--start changes nothing",
        ),
    ],
)
def test_bad_input_before_anything_is_loaded(more, words, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("sparsediff.cli.prune_run.load_pipeline", refuse)
    assert main(["prune", UNET, "--out", str(tmp_path / "out"), *more]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", [UNET, f"{UNET}/unet"], ids=["pipeline", "model"])
@pytest.mark.parametrize("theirs", ["README.md", "pruning.html"])
def test_what_is_in_the_way_is_not_replaced(model, theirs, tmp_path, capsys, monkeypatch):
    """Said before anything is scored; the current folder is the likeliest."""
    model = str(Path(model).resolve())
    monkeypatch.chdir(tmp_path)
    Path(theirs).write_text("mine")
    assert main(["prune", model, "--objective", "magnitude", "--out", ".", "--samples", "0"]) == 1
    assert f"The current folder holds {theirs}, which would be replaced" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {theirs: "mine"}


@pytest.mark.parametrize("name", ["prune", "distill", "search"])
def test_an_empty_name_is_not_the_current_folder(name, capsys):
    with pytest.raises(SystemExit) as error:
        parser().parse_args([name, UNET, "--prompts", "x", "--out", ""])
    assert error.value.code == 2
    assert "--out: is empty: needs the name of a folder" in capsys.readouterr().err


def test_a_name_that_is_too_long(capsys):
    with pytest.raises(SystemExit) as error:
        parser().parse_args(["prune", UNET, "--out", "x" * 300])
    assert error.value.code == 2
    assert "--out: is too long" in capsys.readouterr().err


def test_seed_and_dtype_are_those_that_were_asked_for(tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--objective", "magnitude", "--dtype", "bfloat16", "--seed", "7", "--repeat", "1"]
    assert main(["prune", UNET, "--out", str(out), *SMALL, *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["seed"] for one in found["samples"]] == [7]
    told = json.loads((out / "generation.json").read_text())
    assert told.pop("dtype") == "bfloat16"
    theirs = json.loads(Path(UNET, "generation.json").read_text())
    del theirs["dtype"]
    assert told == theirs


def test_a_model_alone_cannot_be_run(prompts, tmp_path, capsys):
    arguments = ["prune", f"{UNET}/unet", "--objective", "wanda", "--prompts", prompts]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "a model without its pipeline" in capsys.readouterr().err


def test_a_kind_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        main(["prune", UNET, "--target", "heads,norms", "--out", "x"])
    assert "'norms'" in capsys.readouterr().err


def test_a_cut_model_that_differs_is_not_saved(tmp_path, capsys, monkeypatch):
    from sparsediff.prune import cutting, removal

    honest = cutting.cut

    def forgetful(model, structures, kept, **options):
        honest(model, structures, kept, **options)
        with torch.no_grad():
            next(model.parameters()).add_(1)

    monkeypatch.setattr(removal, "cut", forgetful)
    out = tmp_path / "out"
    assert main(["prune", UNET, "--objective", "magnitude", "--out", str(out), *SMALL]) == 1
    assert "differs from the masked one" in capsys.readouterr().err
    assert not Path(out, "model_index.json").exists()
