"""The embedded model: complete, small, safe, and loaded by stock diffusers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
MODEL = SAMPLES / "models/shapes-wan"


@pytest.fixture(scope="module")
def generation() -> dict:
    return json.loads((MODEL / "generation.json").read_text())


@pytest.fixture(scope="module")
def pipe(generation: dict) -> WanPipeline:
    pipe = WanPipeline.from_pretrained(MODEL, torch_dtype=getattr(torch, generation["dtype"]))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert len(files) >= 10
    assert sum(file.stat().st_size for file in files) < 12e6
    allowed = {".safetensors", ".json", ".md", ".png"}
    assert {file.suffix for file in files} <= allowed
    # A pickle renamed to .safetensors would not start with a JSON header.
    for file in MODEL.rglob("*.safetensors"):
        assert file.read_bytes()[8:10] == b'{"'


def test_generation_json_follows_its_schema(generation: dict) -> None:
    keys = {"schema", "prompt", "call", "fps", "dtype", "autocast"}
    assert set(generation) == keys
    assert generation["schema"] == "sparsediff.generation/1"
    assert generation["dtype"] in {"float32", "bfloat16"}
    assert generation["autocast"] in {None, "bfloat16"}
    call = generation["call"]
    assert (call["height"], call["width"], call["num_frames"]) == (64, 64, 17)
    assert set(call) == {
        "height",
        "width",
        "num_frames",
        "num_inference_steps",
        "guidance_scale",
        "max_sequence_length",
    }


def test_weights_are_trained_and_finite(pipe: WanPipeline) -> None:
    for name, parameter in pipe.transformer.named_parameters():
        assert torch.isfinite(parameter).all(), name
    # A new transformer of these scripts predicts zero.
    assert pipe.transformer.proj_out.weight.abs().max() > 0.01


def test_the_recommended_call_gives_a_video(pipe: WanPipeline, generation: dict) -> None:
    call = {**generation["call"], "num_inference_steps": 2}
    generator = torch.Generator().manual_seed(0)
    video = pipe(generation["prompt"], generator=generator, output_type="pt", **call).frames
    assert video.shape == (1, 17, 3, 64, 64)
    assert torch.isfinite(video).all()
    assert video.float().std() > 0.01


def test_tokenizer_and_text_encoder_are_what_the_scripts_build(pipe: WanPipeline) -> None:
    from captions import build_text_encoder, build_tokenizer

    prompt = "a red circle moving right on a dark background"
    assert pipe.tokenizer(prompt).input_ids == build_tokenizer()(prompt).input_ids
    built = build_text_encoder().to(torch.bfloat16).state_dict()
    for name, published in pipe.text_encoder.to(torch.bfloat16).state_dict().items():
        assert torch.equal(published, built[name]), name


def test_prompts_are_48_balanced_and_not_in_the_sample_sheet() -> None:
    from captions import labels_of
    from evaluate import SHEET

    prompts = (SAMPLES / "prompts.txt").read_text().splitlines()
    assert len(set(prompts)) == 48
    assert not set(prompts) & set(SHEET)
    labels = [labels_of(prompt) for prompt in prompts]
    for name, each in (("shape", 8), ("color", 6), ("motion", 8), ("background", 24)):
        values = [label[name] for label in labels]
        assert all(values.count(value) == each for value in set(values)), name
