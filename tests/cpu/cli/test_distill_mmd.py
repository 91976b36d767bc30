"""--objective mmd from the command line, with a tiny CLIP from a folder: trained, and refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_pipelines import FAMILIES
from tiny_training import forget_accelerate

from sparsediff.cli import main

SIDE = 64


@pytest.fixture(autouse=True)
def _accelerate():
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Stable Diffusion, a tiny CLIP, three images and prompts."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    path = tmp_path_factory.mktemp("mmd")
    FAMILIES["stable_diffusion"].build().save_pretrained(path / "model")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(path / "clip")
    (path / "images").mkdir()
    for number, colour in enumerate(["red", "blue", "green"]):
        Image.new("RGB", (SIDE + 8 * number, SIDE), colour).save(path / "images" / f"{number}.png")
    (path / "prompts.txt").write_text("a red ball\na blue ball\n")
    return path


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["distill", str(folder / "model"), "--prompts", str(folder / "prompts.txt")]
    given += ["--out", str(out), "--size", f"{SIDE}x{SIDE}", "--steps", "2", "--iterations", "1"]
    given += ["--method", "none", "--objective", "mmd", "--lora-rank", "2", "--device", "cpu"]
    given += ["--warmup-iterations", "0", "--average", "0", "--learning-rate", "0.01", "--json"]
    return [*given, *more]


def test_images_and_a_clip_train_a_student(folder, tmp_path, capsys):
    data = ["--data", str(folder / "images"), "--features", str(folder / "clip"), "--batch", "2"]
    assert main(arguments(folder, tmp_path / "out", *data)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["objective"] == "mmd"
    (line,) = (tmp_path / "out" / "training" / "log.jsonl").read_text().splitlines()
    logged = json.loads(line)
    assert logged["student_norm"] > 0
    assert "fake_loss" not in logged
    weights = load_file(tmp_path / "out" / "pytorch_lora_weights.safetensors")
    moved = [name for name, value in weights.items() if "lora_B" in name and value.any()]
    assert len(moved) == len(weights) / 2  # B begins at zero: all of them learned


@pytest.mark.parametrize(
    ("data", "features", "batch", "words"),
    [
        ("images", "clip", "1", "batch=1"),
        ("clip", "clip", "2", "holds no images"),
        ("images", "images", "2", "could not be loaded"),
        ("nowhere", "clip", "2", "holds no images"),
    ],
)
def test_refuses(folder, tmp_path, capsys, data, features, batch, words):
    given = ["--data", str(folder / data), "--features", str(folder / features), "--batch", batch]
    assert main(arguments(folder, tmp_path / "out", *given)) == 1
    assert words in json.loads(capsys.readouterr().out)["error"]
