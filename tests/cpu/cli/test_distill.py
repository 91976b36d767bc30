"""`sparsediff distill`: the whole way on the sample model, and what is refused before it."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import forget_accelerate

import sparsediff
from sparsediff.cli import distill, distill_arguments, main, parser
from sparsediff.distill.training import settings as settings_module
from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import STATELESS
from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.search import METHODS

SMALL = ["--size", "32x32x17", "--steps", "2", "--iterations", "1", "--lora-rank", "4"]
MMD = ["--objective", "mmd", "--data", "images", "--features", "clip"]
STEPS, LAYERS = 2, 6
# Fields that are not flags of their own name.
MADE = {"call": "--size", "method": "--method"}


@pytest.fixture(autouse=True)
def _accelerate():
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle moving right\n\na blue ring\n")
    return str(path)


@pytest.fixture
def no_loading(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("sparsediff.loading.load_pipeline", refuse)


def flags():
    commands = next(a for a in parser()._actions if a.dest == "command")
    actions = commands.choices["distill"]._actions
    return {flag: action for action in actions for flag in action.option_strings}


def test_from_prompts_to_a_student_that_runs_sparse(sample, prompts, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["distill", sample, "--prompts", prompts, "--out", str(out), *SMALL]
    arguments += ["--method", "blade-asa", "--density", "0.5", "--block-size", "16"]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    printed, said = capsys.readouterr()
    found = json.loads(printed)
    assert printed.count("\n") == 1
    assert found["schema"] == distill.SCHEMA
    assert (found["out"], found["iterations"]) == (str(out), 1)
    assert found["settings"]["call"]["width"] == 32
    assert "iteration 1 of 1: " in said
    assert "Already found a `peft_config`" not in said
    weights = load_file(out / "pytorch_lora_weights.safetensors")
    assert len(weights) == 2 * 4 * 2 * LAYERS  # A and B, four layers, self- and cross-attention
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert (out / "training" / "checkpoints" / "iteration-000001").is_dir()

    pipe = load_pipeline(ModelFiles(name=sample), dtype="float32", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    session = sparsediff.load_student(pipe, out, gate=False)
    call = found["settings"]["call"] | {"guidance_scale": 1.0, "output_type": "latent"}
    pipe("a red circle", num_inference_steps=STEPS, **call)
    report = session.report()
    assert report.sparse_calls == STEPS * LAYERS
    assert 0 < report.density < 1
    assert report.fallbacks == {}

    # The same command again: refused; resumed, it has nothing left to do.
    assert main([*arguments, "--quiet"]) == 1
    assert "--resume_from_checkpoint latest" in capsys.readouterr().err
    forget_accelerate()
    assert main([*arguments, "--quiet", "--device", "cpu", "--resume-from-checkpoint=latest"]) == 0
    assert capsys.readouterr().out.startswith(f"student: {out} (1 iterations)\nnext: ")
    again = load_file(out / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("size", "frames"), [("32x32x1", 1), ("32x32x9", 9), ("32x32", 17), (None, 17)]
)
def test_a_size_is_what_is_trained(size, frames):
    """One frame of a video model is asked for by saying so; without frames they are the folder's."""
    recipe = GenerationRecipe(call={"width": 64, "height": 64, "num_frames": 17})
    given = [] if size is None else ["--size", size]
    args = parser().parse_args(["distill", "m", "--prompts", "p", "--out", "o", *given])
    assert distill._settings(args, recipe).call["num_frames"] == frames


def test_every_setting_has_a_flag():
    names = {field.name for field in dataclasses.fields(DistillSettings)}
    assert names == set(distill_arguments.SETTINGS) | set(MADE)
    known = flags()
    for name in distill_arguments.SETTINGS + distill_arguments.METHOD_OPTIONS:
        assert known[f"--{name}"] is known[f"--{name.replace('_', '-')}"]
        assert known[f"--{name}"].default is None  # the default is written in one place only
    assert set(MADE.values()) < set(known)


def test_the_help_says_the_defaults_that_settings_have():
    known = flags()
    for field in dataclasses.fields(DistillSettings):
        action = known.get(f"--{field.name}")
        if action is None or not (action.help or "").endswith(")"):
            continue
        said = action.help.rpartition("(")[2].rstrip(")")
        default = field.default
        if isinstance(default, tuple):
            assert said.split() == list(default)
        elif isinstance(default, str):
            assert said == default
        elif default is not None:
            assert float(said.split()[-1]) == default, field.name


def test_choices_are_those_of_the_package():
    assert (*STATELESS, "none") == distill_arguments.METHODS
    assert set(STATELESS) < set(METHODS)
    assert distill_arguments.SPARSE_IN == settings_module._SPARSE
    assert distill_arguments.OBJECTIVES == settings_module._OBJECTIVES
    assert distill_arguments.SCHEDULES == settings_module._SCHEDULES
    assert distill_arguments.PRECISIONS == settings_module._PRECISIONS
    options = {field.name for name in STATELESS for field in dataclasses.fields(METHODS[name])}
    assert set(distill_arguments.METHOD_OPTIONS) < options


def test_settings_read_what_they_wrote():
    settings = DistillSettings(method={"name": "window"}, validation_prompts=("a",))
    text = json.dumps(settings.to_dict())
    assert DistillSettings.from_dict(json.loads(text), source="x") == settings
    with pytest.raises(
        SparseError, match=r"^x has an unknown setting 'step'\. Did you mean 'steps'"
    ):
        DistillSettings.from_dict({"step": 3}, source="x")


def test_help_imports_nothing_heavy():
    code = """
import sys
from sparsediff.cli import main
try:
    main(["distill", "--help"])
except SystemExit as end:
    heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "peft"}
    print(end.code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--resume-from-checkpoint" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], ["steps=0", ">= 1"]),
        (["--segments", "9"], ["segments=9", "8 steps"]),
        (["--density", "1.5"], ["density=1.5"]),
        (["--method", "window", "--energy", "0.9"], ["Window has no option 'energy'"]),
        (["--method", "none", "--density", "0.3"], ["--density", "--method none"]),
        (["--learning-rate", "2"], ["learning_rate=2.0"]),
        (["--size", "big"], ["big"]),
        (["--limit", "0"], ["--limit 0"]),
        (["--validate-every", "5"], ["validation_prompts"]),
        (["--device", "abacus"], ["abacus"]),
        (["--precision", "fp16", "--device", "cpu"], ["precision='fp16'"]),
        (["--report-to", "notebook", "--device", "cpu"], ["no tracker 'notebook'", "wandb"]),
        (["--resume-from-checkpoint", "iteration-000009"], ["iteration-000009", "no checkpoint"]),
        (["--sparse-in", "none"], ["--sparse-in none", "--method none"]),
        (["--method", "none", "--sparse-in", "both"], ["--sparse-in", "nothing is sparse"]),
        (["--lora-rank", "0", "--lora-alpha", "4"], ["--lora-alpha", "trains all weights"]),
        (["--lora-rank", "0", "--lora-targets", "to_q"], ["--lora-targets", "trains all weights"]),
        (["--schedule", "constant", "--warmup-iterations", "3"], ["--warmup-iterations"]),
        (["--checkpoint-every", "0", "--keep-checkpoints", "3"], ["--keep-checkpoints"]),
        (["--validation-prompts", "a ball"], ["--validation-prompts", "--validate-every N"]),
        (["--encode-to", "embeddings.pt"], ["embeddings.pt", ".safetensors"]),
        (["--data", "images"], ["--data", "only --objective mmd"]),
        (["--objective", "mmd", "--data", "images"], ["needs --data DIR and --features MODEL"]),
        (["--objective", "imitation", "--churn", "0.4"], ["--churn", "no fake score"]),
        (
            [*MMD, "--no-separate", "--fake-updates", "2", "--guidance", "3"],
            ["--guidance, --fake-updates, --separate: ", "mmd has neither"],
        ),
        (["--start-from", "nowhere"], ["nowhere", "pytorch_lora_weights.safetensors"]),
    ],
)
def test_bad_value(sample, prompts, tmp_path, arguments, words, capsys):
    out = tmp_path / "out"
    given = ["distill", sample, "--prompts", prompts, "--out", str(out), *arguments]
    assert main(given) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    last = said.splitlines()[-1]
    assert last.startswith("sparsediff distill: ")
    assert all(word in last for word in words), said
    assert not out.exists()


@pytest.mark.usefixtures("no_loading")
def test_what_is_in_the_way_is_said_before_the_training(sample, prompts, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    assert main(["distill", sample, "--prompts", prompts, "--out", str(out)]) == 1
    assert "out holds README.md, which would be replaced" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "mine"


@pytest.mark.usefixtures("no_loading")
def test_an_error_is_one_json_object(sample, tmp_path, capsys):
    given = ["distill", sample, "--prompts", str(tmp_path / "none.txt"), "--out", str(tmp_path)]
    assert main([*given, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == distill.SCHEMA
    assert "none.txt cannot be read" in found["error"]


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(SparseError, match=r"tracker 'wandb' is not installed.*pip install wandb"):
        accelerator_for(DistillSettings(), tmp_path, cpu=True, report_to="wandb")


def test_no_module_name_is_missing_from_the_package():
    """The wheel of this tree has the command's package: an editable install would hide it."""
    assert importlib.metadata.version("sparsediff") == sparsediff.__version__
    assert Path(distill.__file__).parent.name == "cli"
