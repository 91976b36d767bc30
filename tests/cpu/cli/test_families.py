"""The command on every family: a folder in, files out, and doctor foresees the token count."""

import json
from pathlib import Path

import pytest
from tiny_pipelines import FAMILIES

from sparsediff.cli.outputs import Outputs
from sparsediff.compare import generate
from sparsediff.estimate import estimate
from sparsediff.generation import SCHEMA
from sparsediff.generation_request import GenerationRequest
from sparsediff.model_files import ModelFiles

# Families whose calls a recipe can hold; doctor foresees their tokens where text has a fixed length
# and all layers see the same sequence.
_FORESEEN = ("wan", "wan22", "ltx", "cogvideox", "cogvideox15", "hunyuan_video", "flux", "chroma")
_OTHERS = ("qwen_image", "sd3", "sdxl")


@pytest.fixture(params=(*_FORESEEN, *_OTHERS))
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def folder(family, tmp_path):
    """The family's toy pipeline as a user would have it on disk, with its recipe."""
    path = tmp_path / "model"
    family.build().save_pretrained(path)
    call = {key: value for key, value in family.call.items() if key != "prompt"}
    recipe = {"schema": SCHEMA, "prompt": "a ring", "call": call, "dtype": "float32"}
    (path / "generation.json").write_text(json.dumps(recipe))
    return str(path)


def test_generate_and_doctor(family, folder, tmp_path):
    request = GenerationRequest(
        model=folder,
        compare=True,
        method="window",
        options={"block_size": 16, "density": 0.5},
        call={"num_inference_steps": 2},
    )
    result = generate(request)
    assert result.prompt == "a ring"
    assert result.is_image is ("num_frames" not in family.call)
    assert result.report.sparse_calls == 2 * family.layers * family.forwards
    assert result.report.dense_calls == 0
    assert not result.quality.identical
    if family.name in _FORESEEN:
        tokens = {mask.q_len for mask in result.masks.values()}
        found = estimate(ModelFiles(name=folder))
        assert {found.tokens} == tokens
        assert found.layers == family.layers
    outputs = Outputs.of(str(tmp_path / "out"), name="x")
    outputs.check(frames=1)
    written = outputs.write(result, command="c")
    assert Path(written["dense"]).suffix == (".png" if result.is_image else ".mp4")
