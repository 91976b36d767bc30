"""`sparsediff generate` on the trained sample model, small and short: the whole way, really run."""

import json
import time
from pathlib import Path

import pytest
import torch

from sparsediff import compare
from sparsediff.cli import main
from sparsediff.compare import generate
from sparsediff.generation import GenerationRecipe
from sparsediff.generation_request import GenerationRequest
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import load_pipeline, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.root_hooks import session_on
from sparsediff.timed_run import Runner

SMALL = {"num_frames": 5, "num_inference_steps": 3}
FLAGS = ["--frames", "5", "--steps", "3"]
LAYERS, BRANCHES = 6, 2


def test_compare_prints_one_object(command, sample, tmp_path):
    done = command(
        "generate", sample, "a blue ring <i>", "--compare", "--density", "0.25", *FLAGS, "--json",
        "-o", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "%|" not in done.stderr  # no progress bar
    found = json.loads(done.stdout)
    assert found["prompt"] == "a blue ring <i>"
    dtype = resolve_dtype(None, GenerationRecipe.of(ModelFiles(name=sample)), "cpu")
    assert (found["steps"], found["seed"], found["dtype"]) == (3, 0, dtype)
    assert found["size"] == {"width": 64, "height": 64, "frames": 5}
    assert found["dense_calls"] == LAYERS * BRANCHES  # the first step of three
    assert found["sparse_calls"] == 2 * LAYERS * BRANCHES
    assert found["density"] == pytest.approx((1 + 2 * found["sparse_density"]) / 3)
    assert 0.2 < found["sparse_density"] < 0.35
    assert found["speedup"] == pytest.approx(found["dense_seconds"] / found["sparse_seconds"])
    assert found["identical"] is False
    assert 10 < found["psnr"] < 100
    assert set(found["outputs"]) == {"sparse", "dense", "report", "result"}
    assert all(Path(path).stat().st_size > 0 for path in found["outputs"].values())
    assert "<i>" not in Path(found["outputs"]["report"]).read_text()


def test_sparse_only_prints_a_table(sample, tmp_path, capsys):
    path = tmp_path / "clip.gif"
    arguments = ["generate", sample, "--method", "window", "--density", "0.3", *FLAGS]
    assert main([*arguments, "--repeat", "3", "-o", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "%|" not in err
    assert "window at density 0.3" in out
    assert "n=3, IQR" in out
    assert out.splitlines()[-1].startswith("next: sparsediff generate ")
    assert out.splitlines()[-1].endswith("--compare")
    assert path.read_bytes()[:4] == b"GIF8"
    assert {p.name for p in tmp_path.iterdir()} == {"clip.gif", "clip.html", "clip.json"}
    content = json.loads((tmp_path / "clip.json").read_text())
    assert content["dense_seconds"] is None
    assert content["dense_calls"] == 0  # a window needs no dense step
    assert content["n"] == 3


def test_dense_is_the_untouched_pipeline(sample):
    recipe = GenerationRecipe.of(ModelFiles(name=sample)).with_call(**SMALL)
    result = generate(
        GenerationRequest(model=sample, prompt="a red circle", seed=5, compare=True, call=SMALL)
    )
    pipe = load_pipeline(ModelFiles(name=sample), dtype=result.dtype, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(
        "a red circle", generator=torch.Generator().manual_seed(5), output_type="np", **recipe.call
    ).frames[0]
    assert torch.equal(result.dense_frames, torch.as_tensor(plain).float())
    assert not torch.equal(result.dense_frames, result.sparse_frames)
    assert set(result.masks) == {f"transformer.blocks.{i}.attn1" for i in range(LAYERS)}


def test_an_empty_prompt_reaches_the_pipeline(sample):
    call = {"num_frames": 1, "num_inference_steps": 1}
    request = GenerationRequest(model=sample, prompt="", method="window", call=call)
    empty = generate(request)
    assert empty.prompt == ""
    own = generate(GenerationRequest(model=sample, method="window", call=call))
    assert own.prompt == "a red circle moving right on a dark background"
    assert not torch.equal(empty.sparse_frames, own.sparse_frames)


@pytest.fixture(scope="module")
def pipe():
    folder = Path(__file__).parents[3] / "samples" / "models" / "shapes-wan"
    return load_pipeline(ModelFiles(name=str(folder)), dtype="float32", device="cpu")


def _runner(pipe, **changes):
    recipe = GenerationRecipe(call={"height": 64, "width": 64, "guidance_scale": 1.0, **changes})
    return Runner(pipe, recipe, prompt="a circle", seed=0, device="cpu")


def test_a_run_that_stays_dense_is_an_error(pipe, sample):
    runner = _runner(pipe, num_frames=5, num_inference_steps=1)
    request = GenerationRequest(model=sample)
    with pytest.raises(
        SparseError, match=r"No attention call ran sparse.*warmup keeps all steps dense .1."
    ):
        compare.measure(runner, request)
    assert session_on(pipe.transformer) is None


def test_a_run_that_falls_back_is_an_error_with_its_reason(pipe, sample):
    runner = _runner(pipe, num_frames=1, num_inference_steps=1)
    request = GenerationRequest(model=sample, method="window", options={"block_size": 4096})
    with pytest.raises(SparseError, match="one block of 4096"):
        compare.measure(runner, request)


def test_dense_refuses_an_enabled_pipeline(pipe, sample):
    session = pipe.enable_sparse_attention("window")
    try:
        with pytest.raises(SparseError, match="still enabled on transformer"):
            compare.measure(_runner(pipe), GenerationRequest(model=sample, compare=True))
    finally:
        session.disable()


def test_the_loop_is_timed_without_encoding_and_decoding(pipe):
    runner = _runner(pipe, num_frames=1, num_inference_steps=2)
    fast = runner.run().seconds

    def delayed(function):
        def call(*arguments, **named):
            time.sleep(1)
            return function(*arguments, **named)

        return call

    pipe.encode_prompt, pipe.vae.decode = delayed(pipe.encode_prompt), delayed(pipe.vae.decode)
    try:
        started = time.perf_counter()
        assert runner.run().seconds < fast + 0.9
        assert time.perf_counter() - started > 2  # both delays were taken
    finally:
        del pipe.encode_prompt, pipe.vae.decode
    assert not pipe.transformer._forward_hooks


def test_a_size_the_pipeline_refuses(sample, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", sample, "a ring", "--height", "65"]) == 1
    err = capsys.readouterr().err
    assert "WanPipeline refuses this call: `height` and `width` have to be divisible by 16" in err
    assert "sparsediff doctor" in err
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())


def test_another_value_error_is_left_as_it_is(pipe, monkeypatch):
    def fail(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(pipe, "encode_prompt", fail)
    with pytest.raises(ValueError, match=r"^a bug$") as found:
        _runner(pipe, num_frames=1, num_inference_steps=1).run()
    assert not isinstance(found.value, SparseError)
    assert not pipe.transformer._forward_hooks


def test_an_argument_the_pipeline_does_not_take(pipe):
    with pytest.raises(SparseError, match="WanPipeline takes no argument 'strength'"):
        Runner(
            pipe,
            type("Recipe", (), {"call": {"strength": 1}})(),
            prompt="a",
            seed=0,
            device="cpu",
        )
