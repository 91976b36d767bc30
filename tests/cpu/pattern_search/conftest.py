"""A Wan of toy size with random weights in a folder, and searches of it that take seconds."""

import json
import shutil

import pytest
from tiny_pipelines import wan

from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.driver import search
from sparsediff.pattern_search.request import SearchRequest

PROMPTS = ("a red circle", "a blue ring", "a pink star")
CALL = {
    "height": 96,
    "width": 96,
    "num_frames": 9,
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}
OPTIONS = {"block_size": 16, "per_bucket": 1, "cost": "flops"}  # times would differ from run to run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    wan(layers=2).save_pretrained(folder)
    recipe = {"schema": "sparsediff.generation/1", "call": CALL, "dtype": "float32"}
    (folder / "generation.json").write_text(json.dumps(recipe))
    return str(folder)


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return str(path)


@pytest.fixture(scope="session")
def request_for(model):
    """A request for a new search of the toy model into a folder."""

    def make(out, kind="density", value=0.5, **changes):
        budget = Budget(kind=kind, value=value)
        values = {"device": "cpu", "options": OPTIONS} | changes
        return SearchRequest.new(model, PROMPTS, budget, out, **values)

    return make


@pytest.fixture(scope="session")
def finished(request_for, tmp_path_factory):
    """A search that nothing interrupted."""
    return search(request_for(tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def with_budget(finished, tmp_path):
    """Go on, in a copy of the finished search, with another budget."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder.path, folder)

    def go_on(kind, value, watch=None):
        budget = Budget(kind=kind, value=value)
        return search(SearchRequest.resume(folder, budget=budget), watch)

    return go_on


def contents(folder):
    """What a search leaves for its reader, bit by bit."""
    names = ("plan.json", "tables.safetensors", "README.md", "search.json", "trials.safetensors")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture
def same_result():
    """Assert that two folders hold the same plan, and that there is one with more than one mode."""

    def check(one, other):
        ours, theirs = contents(one), contents(other)
        assert {"plan.json", "search.json", "trials.safetensors"} <= set(ours)
        assert len(json.loads(ours["search.json"])["modes"]) > 1
        assert ours == theirs

    return check
