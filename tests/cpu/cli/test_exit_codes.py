"""Bad input is refused with a sentence and a stable exit code, before the model is loaded."""

import json

import pytest

from sparsediff import loaded_model
from sparsediff.cli import main
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import resolve_device


@pytest.fixture(autouse=True)
def _no_loading(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr(loaded_model, "load_pipeline", refuse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--density", "1.5"], ["density=1.5", "(0, 1]"]),
        (["--density", "0"], ["density=0.0"]),
        (["--density", "nan"], ["density=nan"]),
        (["--block-size", "0"], ["block_size=0"]),
        (["--warmup", "1"], ["warmup=1.0"]),
        (["--refresh", "0.6,1"], ["refresh=(0.6, 1.0)"]),
        (["--method", "window", "--refresh", "0.5"], ["Window has no option 'refresh'"]),
        (["--backend", "cuda"], ["'cuda'", "auto", "reference"]),
        (["--steps", "0"], ["num_inference_steps=0"]),
        (["--height", "-8"], ["height=-8"]),
        (["--guidance", "-1"], ["guidance_scale=-1.0"]),
        (["--repeat", "0"], ["repeat=0"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--device", "abacus"], ["abacus"]),
        (["-o", "clip.avi"], ["clip.avi", ".mp4"]),
        (["-o", "a.txt"], ["a.txt", ".mp4, .gif, .png"]),
        (["-o", "clip.png"], ["17 frames", ".mp4"]),
    ],
)
def test_bad_value(sample, arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", sample, "a circle", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sparsediff generate: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not any(tmp_path.iterdir())  # nothing to write, no folder


def test_error_as_json(sample, capsys):
    assert main(["generate", sample, "a circle", "--density", "2", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["schema"] == "sparsediff.generate/1"
    assert "density=2.0" in found["error"]
    assert "density=2.0" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["generate"],
        ["dance"],
        ["generate", "m", "p", "--density", "some"],
        ["generate", "m", "p", "--method", "magic"],
        ["generate", "m", "p", "--dtype", "int3"],
        ["generate", "m", "p", "--colour"],
        ["generate", "m", "p", "--refresh", ""],
        ["generate", "m", "p", "--refresh", "0.6,some"],
    ],
)
def test_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: sparsediff" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "nowhere", "a/b/c"])
def test_missing_folder_is_not_looked_up_on_the_hub(model, capsys):
    assert main(["generate", model, "a circle"]) == 1
    assert "There is no model at" in capsys.readouterr().err


def test_folder_without_a_pipeline(tmp_path, capsys):
    assert main(["generate", str(tmp_path), "a circle"]) == 1
    assert "model_index.json" in capsys.readouterr().err


def test_unsupported_model(config_folder, capsys):
    folder = config_folder(
        {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "_x": [None, None]}
    )
    assert main(["generate", str(folder), "a circle"]) == 1
    err = capsys.readouterr().err
    assert "UNet2DModel" in err
    assert "WanTransformer3DModel" in err


def test_no_prompt_anywhere(config_folder, capsys):
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    assert main(["generate", str(config_folder(index))]) == 1
    assert "no prompt" in capsys.readouterr().err


def test_broken_recipe(config_folder, capsys):
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    folder = config_folder(index)
    (folder / "generation.json").write_text('{"schema": "sparsediff.generation/1", "promt": "x"}')
    assert main(["generate", str(folder), "a circle"]) == 1
    err = capsys.readouterr().err
    assert "generation.json" in err
    assert "'prompt'" in err


def test_folder_that_cannot_be_made(sample, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["generate", sample, "a circle", "-o", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_folder_that_is_not_writable(sample, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert main(["generate", sample, "a circle", "-o", str(tmp_path / "a" / "b")]) == 1
    assert f"{tmp_path} is not writable" in capsys.readouterr().err


def test_a_run_that_fails_leaves_no_folder(sample, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SparseError("broken")

    monkeypatch.setattr(loaded_model, "load_pipeline", fail)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", sample, "a circle"]) == 1
    assert not any(tmp_path.iterdir())


def test_the_reason_why_a_device_cannot_be_used_ends_with_a_full_stop(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr("torch.empty", refuse)
    with pytest.raises(SparseError, match=r"with CUDA enabled\. Leave it out to use"):
        resolve_device("cuda")


def test_interrupted(sample, monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loaded_model, "load_pipeline", interrupt)
    assert main(["generate", sample, "a circle", "-o", str(tmp_path), "--json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == "Interrupted."
    assert "Traceback" not in err


def test_exit_code_of_the_process(command):
    done = command("generate", "nowhere", "a circle")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
