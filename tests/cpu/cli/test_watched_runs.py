"""A loaded model that runs again and again: steps are told, a run can be ended, dense is run once."""

from pathlib import Path

import pytest
import torch

from sparsediff.compare import generate, generate_with, run_dense
from sparsediff.generation_request import GenerationRequest
from sparsediff.loaded_model import LoadedModel
from sparsediff.root_hooks import session_on
from sparsediff.step_watch import RunStopped

CALL = {"num_frames": 5, "num_inference_steps": 3}
BRANCHES = 2


@pytest.fixture(scope="module")
def sample_model():
    folder = Path(__file__).parents[3] / "samples" / "models" / "shapes-wan"
    request = GenerationRequest(
        model=str(folder), method="window", seed=3, compare=True, gate=False, call=CALL
    )
    return LoadedModel.of(request), request


def test_every_step_is_told_with_its_number(sample_model):
    model, request = sample_model
    seen = []
    model.runner(request, watcher=seen.append).run(decode=False)
    assert [(step.index, step.total) for step in seen] == [
        (number, 3) for number in range(3) for _ in range(BRANCHES)
    ]
    assert not model.pipe.transformer._forward_pre_hooks


def test_a_stopped_sparse_run_leaves_the_model_dense(sample_model):
    model, request = sample_model
    before = model.runner(request).run().frames

    def stop(step):
        if session_on(model.pipe.transformer) is not None and step.index == 1:
            raise RunStopped

    with pytest.raises(RunStopped):
        generate_with(model, model.runner(request, watcher=stop), request)
    assert session_on(model.pipe.transformer) is None
    assert not model.pipe.transformer._forward_pre_hooks
    assert torch.equal(model.runner(request).run().frames, before)


def test_a_known_dense_run_is_not_made_again_and_changes_no_figure(sample_model):
    model, request = sample_model
    dense = run_dense(model.runner(request), request)
    sparse_forwards = []

    def watch(step):
        sparse_forwards.append(session_on(model.pipe.transformer) is not None)

    found = generate_with(model, model.runner(request, watcher=watch), request, dense=dense)
    assert sparse_forwards
    assert all(sparse_forwards)
    whole = generate(request)
    assert found.dense.seconds == (dense.seconds,)
    assert found.quality == whole.quality
    assert found.report.density == whole.report.density
    assert torch.equal(found.sparse_frames, whole.sparse_frames)
