"""`sparsediff generate --student`: a distilled student in place of the model, dense and sparse."""

import json

import pytest
from tiny_pipelines import FAMILIES
from tiny_student import STEPS, make_student

from sparsediff.compare import generate
from sparsediff.generation import SCHEMA
from sparsediff.generation_request import GenerationRequest
from sparsediff.kernels.errors import SparseError
from sparsediff.search import BladeASA

METHOD = BladeASA(block_size=16, density=0.5, sample_tokens=4)


@pytest.fixture
def places(tmp_path):
    """A toy Wan pipeline on disk with its recipe, and a student of it."""
    family = FAMILIES["wan"]
    pipe = family.build()
    model, student = tmp_path / "model", tmp_path / "student"
    pipe.save_pretrained(model)
    call = {key: value for key, value in family.call.items() if key != "prompt"}
    recipe = {"schema": SCHEMA, "prompt": "a ring", "call": call, "dtype": "float32"}
    (model / "generation.json").write_text(json.dumps(recipe))
    make_student(pipe, student, method=METHOD)
    return str(model), str(student)


def test_a_student_runs_as_it_was_trained(places):
    model, student = places
    request = GenerationRequest(model=model, student=student, compare=True, gate=False)
    result = generate(request)
    assert request.method == METHOD
    assert result.steps == STEPS
    assert result.call["guidance_scale"] == 1.0
    # No guidance: one forward a step, every layer of it sparse.
    assert result.report.sparse_calls == STEPS * FAMILIES["wan"].layers
    assert result.report.dense_calls == 0
    plain = {"method": "window", "options": {"block_size": 16}, "gate": False}
    base = generate(GenerationRequest(model=model, call=result.call, compare=True, **plain))
    assert not bool((base.dense_frames == result.dense_frames).all())


def test_other_steps_are_refused(places):
    model, student = places
    with pytest.raises(SparseError, match=f"trained for {STEPS}"):
        GenerationRequest(model=model, student=student, call={"num_inference_steps": 3})
