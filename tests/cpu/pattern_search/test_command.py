"""`sparsediff search`: what it prints, what it refuses and when, and help without torch."""

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparsediff.cli import main, search, search_arguments
from sparsediff.pattern_search import budget, driver, options, passes
from sparsediff.pattern_search.watch import SearchStopped

ROOT = Path(__file__).parents[3]
_HELP = """
import sys
from sparsediff.cli import main
try:
    main(["search", "--help"])
except SystemExit as end:
    print(end.code, sorted({"torch", "numpy", "diffusers", "accelerate"} & set(sys.modules)))
"""


@pytest.fixture
def arguments(model, prompt_file, tmp_path):
    """A complete command line without its budget."""
    flags = ["--block-size", "16", "--cost", "flops", "--device", "cpu"]
    return [model, "--prompts", prompt_file, "--out", str(tmp_path / "run"), *flags]


@pytest.fixture
def no_loading(monkeypatch):
    monkeypatch.setattr(driver, "load_pipeline", lambda *_, **__: pytest.fail("loaded"))


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)
    assert "--max-minutes" in done.stdout
    assert "up to 3 % of the heads" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_names_written_out_are_those_of_the_packages():
    assert set(search_arguments.BUDGETS) == set(budget.KINDS)
    assert search_arguments.COSTS == options.COSTS


def test_the_next_command_is_for_the_size_of_the_plan(model, finished):
    settings = finished.settings
    call = {**settings.call, "num_frames": 5, "num_inference_steps": 7}
    other = dataclasses.replace(
        finished, settings=dataclasses.replace(settings, call=call, model=model)
    )
    assert search._next_step(finished).endswith(f"--plan {finished.folder.path} --compare")
    assert search._next_step(other).endswith(" --frames 5 --steps 7 --compare")


def test_the_whole_command(arguments, model, tmp_path, capsys):
    assert main(["search", *arguments, "--density", "0.5", "--limit", "1", "--progress"]) == 0
    out, err = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  "))
    assert rows["budget"] == "density 0.5"
    assert rows["prompts"] == "1 of 1"
    assert "FLOPs, nothing was timed" in rows["attention"]
    plan = str(tmp_path / "run")
    assert out.splitlines()[-1] == "next: " + shlex.join(
        ["sparsediff", "generate", model, "a red circle", "--plan", plan, "--compare"]
    )
    assert "0/3 profile, prompt 1 of 1" in err
    assert "2/3 trial, prompt 1 of 1, about" in err
    written = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert written["evidence"]["command"] == (
        f"sparsediff search {Path(model).name} --prompts prompts.txt --limit 1 --block-size 16 "
        f"--cost flops --device cpu --density 0.5"
    )
    assert main(["search", "--resume", plan, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["schema"], found["met"], found["out"]) == ("sparsediff.search/1", True, plan)
    assert found["density"] <= 0.5
    assert "profile, prompt" not in err  # nobody sits there


def test_interrupted_says_what_is_saved_and_how_to_go_on(arguments, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "trial", interrupt)
    assert main(["search", *arguments, "--density", "0.5", "--limit", "1", "--json"]) == 130
    out, err = capsys.readouterr()
    words = f"saved 1 of 3 units; resume: sparsediff search --resume {tmp_path / 'run'}"
    assert err.splitlines()[-1] == f"sparsediff search: {words}"
    assert json.loads(out) == {"schema": "sparsediff.search/1", "error": words}
    assert not (tmp_path / "run" / "lock").exists()


def test_interrupted_while_the_model_is_loaded(arguments, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "load_pipeline", interrupt)
    assert main(["search", *arguments, "--density", "0.5"]) == 130
    assert "nothing is saved" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_time_is_up_before_any_trial(arguments, tmp_path, capsys):
    flags = ["--density", "0.5", "--max-minutes", "0"]
    assert main(["search", *arguments, *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Saved 0 of 7 units; resume: sparsediff search --resume {tmp_path / 'run'}" in err


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--density", "2"], "density=2.0"),
        (["--psnr", "0"], "psnr=0.0"),
        (["--speedup", "0.9"], "speedup=0.9"),
        (["--density", "0.3", "--size", "90x96x9"], "width has to be a multiple of 16"),
        (["--density", "0.3", "--size", "large"], "size 'large'"),
        (["--density", "0.3", "--steps", "0"], "num_inference_steps=0"),
        (["--density", "0.3", "--limit", "0"], "--limit 0"),
        (["--density", "0.3", "--block-size", "0"], "block_size=0"),
        (["--density", "0.3", "--seed", "-1"], "seed=-1"),
        (["--density", "0.3", "--backend", "cuda"], "'cuda'"),
        (["--density", "0.3", "--prompts", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--density", "0.3", "--device", "abacus"], "abacus"),
        (["--density", "0.3", "--max-minutes", "-1"], "max_minutes=-1.0"),
    ],
)
def test_bad_values_are_refused_before_loading(arguments, flags, words, tmp_path, capsys):
    assert main(["search", *arguments, *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_loading")
def test_folders_are_refused_before_loading(arguments, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert main(["search", *arguments, "--density", "0.3"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["search", "--resume", str(tmp_path / "none")]) == 1
    assert "holds no search to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "one of the arguments --density --psnr --speedup is required"),
        (["m", "--density", "0.3"], "required: --prompts, --out"),
        (["m", "--density", "0.3", "--psnr", "30"], "not allowed with argument"),
        (["--resume", "d", "--out", "e"], "leave out --out"),
        (["--resume", "d", "--limit", "3"], "--limit needs --prompts"),
        (["m", "--density", "some"], "invalid float value"),
    ],
)
def test_wrong_command_lines(given, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["search", *given])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_the_command_in_the_evidence_parses_and_leaves_nothing_out():
    """Every argument is repeated by the command, or is known to be of one run only."""
    parser = argparse.ArgumentParser()
    search_arguments.add_arguments(parser)
    given = "m --prompts f --limit 2 --size 1x2x3 --steps 4 --seed 5 --block-size 6 --cost flops"
    given += " --device cpu --dtype float32 --backend gather --allow-skip --online --compensate"
    args = parser.parse_args(given.split())
    words = search_arguments.command_words(args)
    assert parser.parse_args(words[2:]) == args
    of_one_run = {"out", "resume", "max_minutes", "json", "progress", "quiet", "help"}
    names = {action.dest for action in parser._actions}
    unset = {name for name in names if not getattr(args, name, None)}
    assert unset == of_one_run | set(search_arguments.BUDGETS)


def test_a_caller_that_stops_the_search_is_no_error_of_the_command():
    assert not issubclass(SearchStopped, ValueError)
    assert search.INTERRUPTED == 130


def test_calibration_prompts_are_even_and_not_those_of_the_tests():
    calibration = (ROOT / "samples/calibration.txt").read_text().splitlines()
    tested = (ROOT / "samples/prompts.txt").read_text().splitlines()
    recipe = json.loads((ROOT / "samples/models/shapes-wan/generation.json").read_text())
    assert len(calibration) == len(set(calibration)) == 8
    assert not set(calibration) & {*tested, recipe["prompt"]}
    words = [line.split(" on a ") for line in calibration]
    assert len({front.split()[1] for front, _ in words}) == 8  # colours, each once
    assert len({front.split()[2] for front, _ in words}) == 6  # shapes
    assert len({" ".join(front.split()[3:]) for front, _ in words}) == 6  # motions
    assert [back for _, back in words].count("dark background") == 4
