"""Pruned, sparse and few steps on one pipeline: a student is trained on the pruned model."""

import diffusers
import pytest
import torch
from pruned_pipelines import WAN_MASKS, pruned_wan
from tiny_pipelines import FAMILIES, wan
from tiny_training import training_of

import sparsediff
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.kernels.errors import AlreadyEnabledError, PlanMismatchError, UnsupportedModelError
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.saving import save_pruned

WAN = FAMILIES["wan"]
NEURONS = Masks(kept={"ffn/blocks.0.ffn": torch.arange(32) > 3})


@pytest.fixture(scope="module", params=[2, 0], ids=["LoRA", "all weights"])
def folders(request, tmp_path_factory):
    """A pruned pipeline and its student, as files."""
    place = tmp_path_factory.mktemp("student")
    pipe = pruned_wan()
    save_pruned(place / "model", pipe, WAN_MASKS)
    training = training_of(
        place / "student",
        pipe=pipe,
        iterations=1,
        lora_rank=request.param,
        warmup_iterations=0,
        average=0.0,
    )
    training.run()
    training.save()
    return place / "model", place / "student", request.param


def _run(pipe):
    """What comes out, and the timesteps that the model was told."""
    told = []

    def note(model, arguments, named):
        told.append(float(named["timestep"].flatten()[0]))

    handle = pipe.transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return WAN.run(pipe, steps=2, guidance_scale=1.0), told
    finally:
        handle.remove()


def test_all_three_on_one_pipeline(folders):
    model, student, rank = folders
    pipe = diffusers.WanPipeline.from_pretrained(model, transformer_2=None)
    teacher, own = _run(pipe)
    session = sparsediff.load_student(pipe, student, gate=False)
    grid = StudentSource.of(student).card().timesteps
    # Pruned: its self-attention has lost a layer whole and a head, its fourth block is gone.
    assert type(pipe.transformer).__name__ == "PrunedWanTransformer3DModel"
    few, told = _run(pipe)
    # Few steps: the student's, not those that the teacher takes.
    assert told == pytest.approx(grid)
    assert len(told) == 2
    assert told != pytest.approx(own)
    # Sparse: both layers that are left, in every step, by the kernel that was meant to run.
    report = session.report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (4, 0, {})
    assert {mask.counts.shape[1] for mask in session.masks().values()} == {1, 2}
    assert not torch.equal(few, teacher)
    # A student was trained as it is: what of it can be pruned is refused, or needs a new student.
    with pytest.raises(AlreadyEnabledError, match="disable_sparse_attention"):
        remove(pipe.transformer, NEURONS)
    pipe.disable_sparse_attention()
    dense, told = _run(pipe)  # what is left is the student's weights and steps
    assert told == pytest.approx(grid)
    assert session.report().sparse_calls == 4
    assert not torch.equal(dense, few)
    assert not torch.equal(dense, teacher)
    if rank:
        with pytest.raises(UnsupportedModelError, match="Prune before adding LoRA"):
            remove(pipe.transformer, NEURONS)
    sparsediff.unload_student(pipe)
    again, told = _run(pipe)
    assert told == own
    assert torch.equal(again, teacher)


def test_the_stock_pipeline_refuses_it(folders):
    _, student, _ = folders
    with pytest.raises(PlanMismatchError, match=r"another model\. layers of transformer"):
        sparsediff.load_student(wan(layers=4), student)
