"""What doctor says of video models' tokens, from their configs, is what their attention gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from seen_layouts import watch_grids
from tiny_pipelines import FAMILIES

from sparsediff.cli import main
from sparsediff.estimate import estimate
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles
from sparsediff.token_size import Size

# Text of the call, and what doctor takes: the length that a pipeline pads to by default.
TEXTS = {"mochi": (13, 256), "hunyuan_video15": (33, 729 + 256 + 1000), "cogvideox_i2v": (16, 226)}
NAMES = (
    "wan_ti2v",
    "wan_vace",
    "wan_animate",
    "skyreels",
    "hunyuan_video15",
    "mochi",
    "cosmos",
    "cosmos25",
    "allegro",
    "easyanimate",
    "kandinsky5",
    "ltx2",
    "cogvideox_i2v",
)


def size_of(call: dict[str, Any]) -> Size:
    frames = call.get("num_frames", call.get("segment_frame_length"))
    return call["width"], call["height"], frames


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    pipe.save_pretrained(tmp_path)
    session = pipe.enable_sparse_attention(density=0.3, block_size=8, warmup=0.0, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=2)
    grid = max((grid for grid in seen if grid is not None), key=lambda grid: grid.tokens)
    found = estimate(ModelFiles(name=str(tmp_path)), size=size_of(family.call))
    called, padded = TEXTS.get(name, (0, 0))
    assert found.grid == (grid.frames, grid.height, grid.width)
    assert found.text_tokens == grid.text_tokens + padded - called
    assert found.layers == len(session.layers)
    (mask, *_) = session.masks().values()
    assert found.heads == mask.counts.shape[1]


@pytest.mark.parametrize("name", ["mochi", "hunyuan_video15", "ltx2", "cosmos"])
def test_doctor(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = FAMILIES[name]
    family.build().save_pretrained(tmp_path)
    size = "x".join(map(str, size_of(family.call)))
    assert main(["doctor", "--json", "--model", str(tmp_path), "--size", size]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["model"]["layers"] == family.layers


@pytest.mark.parametrize(("name", "why"), [("framepack", "history"), ("latte", "along time")])
def test_a_sequence_that_a_size_does_not_tell_is_refused(
    name: str, why: str, tmp_path: Path
) -> None:
    FAMILIES[name].build().save_pretrained(tmp_path)
    with pytest.raises(SparseError, match=why):
        estimate(ModelFiles(name=str(tmp_path)), size=(64, 64, 9))


def test_frames_of_a_vae_whose_first_latent_is_as_long_as_the_others(tmp_path: Path) -> None:
    FAMILIES["allegro"].build().save_pretrained(tmp_path)
    files = ModelFiles(name=str(tmp_path))
    assert estimate(files, size=(64, 64, 16)).grid == (4, 4, 4)
    with pytest.raises(
        SparseError, match=r"multiple of 4\. The nearest size that fits is 64x64x12"
    ):
        estimate(files, size=(64, 64, 13))
