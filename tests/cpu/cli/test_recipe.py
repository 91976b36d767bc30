"""GenerationRecipe: what generation.json may hold."""

import pytest

from sparsediff.generation import SCHEMA, GenerationRecipe
from sparsediff.generation_request import GenerationRequest
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles

GOOD = {
    "schema": SCHEMA,
    "prompt": "a circle",
    "call": {"height": 64, "num_frames": 17, "guidance_scale": 4.0, "negative_prompt": "blur"},
    "fps": 8,
    "dtype": "float32",
    "autocast": "bfloat16",
}


def test_reads_every_field():
    recipe = GenerationRecipe.from_dict(GOOD, source="here")
    assert recipe.prompt == "a circle"
    assert recipe.call["num_frames"] == 17
    assert (recipe.fps, recipe.dtype, recipe.autocast) == (8, "float32", "bfloat16")


def test_the_sample_model_has_one(sample):
    recipe = GenerationRecipe.of(ModelFiles(name=sample))
    assert recipe.prompt
    assert recipe.call["height"] == 64


def test_a_model_without_one_gets_the_pipelines_defaults(tmp_path):
    recipe = GenerationRecipe.of(ModelFiles(name=str(tmp_path)))
    assert recipe == GenerationRecipe()


def test_with_call_changes_what_is_given():
    recipe = GenerationRecipe.from_dict(GOOD, source="here").with_call(height=32, num_frames=None)
    assert recipe.call["height"] == 32
    assert recipe.call["num_frames"] == 17
    assert recipe.prompt == "a circle"


def test_an_empty_prompt_is_a_prompt_and_none_takes_the_models(sample):
    assert GenerationRequest(model=sample, prompt="").recipe().prompt == ""
    assert GenerationRequest(model=sample, prompt="a ring").recipe().prompt == "a ring"
    assert GenerationRequest(model=sample).recipe() == GenerationRecipe.of(ModelFiles(name=sample))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other/1"}, "other/1"),
        ({"schema": None}, "schema"),
        ({"hieght": 4}, "unknown key 'hieght'"),
        ({"call": {"hieght": 4}}, "Did you mean 'height'"),
        ({"call": {"height": 0}}, "height=0"),
        ({"call": {"height": True}}, "height=True"),
        ({"call": {"height": 64.0}}, "height=64.0"),
        ({"call": {"guidance_scale": "4"}}, "guidance_scale='4'"),
        ({"call": {"guidance_scale": float("nan")}}, "guidance_scale=nan"),
        ({"call": [1]}, "call="),
        ({"call": {"negative_prompt": 1}}, "negative_prompt=1"),
        ({"call": {"prompt_template": "{}"}}, "prompt_template='{}'"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"autocast": "float64"}, "autocast='float64'"),
        ({"fps": 0}, "fps=0"),
        ({"prompt": 3}, "prompt=3"),
    ],
)
def test_anything_else_is_refused(change, words):
    with pytest.raises(SparseError, match="here") as found:
        GenerationRecipe.from_dict({**GOOD, **change}, source="here")
    assert words in str(found.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "generation.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SparseError, match=r"generation\.json"):
        GenerationRecipe.of(ModelFiles(name=str(tmp_path)))
