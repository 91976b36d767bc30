"""The search of a toy model: its plan, ending early, going on, and the limit of time."""

import dataclasses
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_pipelines import FAMILIES

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search import driver, passes
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.driver import search
from sparsediff.pattern_search.probes import planned_frames, stage_of
from sparsediff.pattern_search.profiles import dense_frames
from sparsediff.pattern_search.request import SearchRequest
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.watch import SearchStopped, Watch
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.quality import psnr


@pytest.fixture
def no_loading(monkeypatch):
    monkeypatch.setattr(driver, "load_pipeline", lambda *_, **__: pytest.fail("loaded"))


def _stopped_after(units):
    """A watch that ends the search when so many units are done."""
    done = []
    return Watch(
        progress=lambda at: done.append(at.done), stop=lambda: bool(done) and done[-1] >= units
    )


def test_a_finished_search_leaves_a_plan_that_fits_the_model(finished, model):
    folder = finished.folder.path
    plan = PatternPlan.from_pretrained(folder)
    assert plan == finished.plan
    plan.check(driver.load_pipeline(driver.ModelFiles(name=model), dtype="float32", device="cpu"))
    assert plan.table.density <= 0.5 < plan.table.density + 0.2
    assert finished.limit is None
    evidence = plan.evidence
    assert (evidence.budget, evidence.target, evidence.seeds) == ("density", 0.5, (0, 1, 2))
    assert "FLOPs" in evidence.cost_source
    assert evidence.density == pytest.approx(0.25 + 0.75 * plan.table.density)  # 1 of 4 steps
    assert not (folder / "lock").exists()


def test_the_plan_is_run_for_its_psnr_and_its_first_video(finished):
    units = finished.folder.units
    dense, planned = dense_frames(units, 0), planned_frames(units, finished.plan.table, 0)
    assert planned.shape == dense.shape
    assert not torch.equal(planned, dense)
    found = [
        float(units.load(stage_of("psnr", finished.plan.table), prompt)["psnr"])
        for prompt in range(3)
    ]
    assert found[0] == pytest.approx(psnr(dense, planned))
    assert finished.plan.evidence.psnr == pytest.approx(sum(found) / 3)
    with pytest.raises(KeyError):  # kept for the first prompt only
        planned_frames(units, finished.plan.table, 1)


def test_what_is_written_beside_the_plan(finished):
    found = json.loads((finished.folder.path / "search.json").read_text())
    assert found["lambda"] == finished.choice.price == found["epsilon"]
    assert found["prompts"] == [0, 1, 2]
    assert sum(found["modes"].values()) == 3 * 2 * 2  # buckets, layers, heads
    trials = load_file(finished.folder.path / "trials.safetensors")
    assert set(trials) == {
        f"{n}.{kind}" for n in (0, 1) for kind in ("errors", "costs", "densities")
    }
    errors = trials["0.errors"]
    assert errors.shape[::2] == (3, 2)
    assert float(errors[:, 0].abs().max()) == 0  # full attention
    assert float(errors[:, 1:].max()) > 0


def test_no_file_names_a_folder_of_this_machine(finished, model):
    for path in finished.folder.path.iterdir():
        if path.is_file() and path.name != "settings.json":
            assert model.encode() not in path.read_bytes(), path.name
            assert str(finished.folder.path).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize("units", [1, 3, 5])
def test_stopped_and_resumed_is_as_if_nothing_had_happened(
    request_for, finished, tmp_path, units, same_result
):
    with pytest.raises(SearchStopped):
        search(request_for(tmp_path / "run"), _stopped_after(units))
    assert RunFolder(path=tmp_path / "run").saved() == (units, 7)
    assert not (tmp_path / "run" / "plan.json").exists()
    assert not (tmp_path / "run" / "lock").exists()
    search(SearchRequest.resume(tmp_path / "run"))
    same_result(tmp_path / "run", finished.folder.path)


def test_a_search_that_came_in_between_is_not_written_over(request_for, tmp_path, no_loading):
    """Two searches were asked for while the folder was empty; the first one has ended."""
    late = request_for(tmp_path / "run", seed=5)
    (tmp_path / "run").mkdir()
    late.folder.write_settings(late.settings)
    with pytest.raises(SparseError, match="already holds a search"):
        search(late)


def test_stop_ends_a_unit_in_the_middle(request_for, tmp_path):
    asked = itertools.count()
    watch = Watch(stop=lambda: next(asked) >= 3)  # before the unit, and before two forwards
    with pytest.raises(SearchStopped):
        search(request_for(tmp_path / "run"), watch)
    assert RunFolder(path=tmp_path / "run").saved() == (0, 7)


def test_a_finished_search_is_not_done_again(finished, monkeypatch):
    before = {path: path.read_bytes() for path in finished.folder.path.iterdir() if path.is_file()}
    for name in ("profile", "trial"):
        monkeypatch.setattr(passes, name, lambda *_, **__: pytest.fail("done again"))
    search(SearchRequest.resume(finished.folder.path))
    assert before == {p: p.read_bytes() for p in finished.folder.path.iterdir() if p.is_file()}


def test_progress_counts_every_unit_and_then_knows_the_time(request_for, tmp_path):
    seen = []
    search(request_for(tmp_path / "run"), Watch(progress=seen.append))
    assert [(at.done, at.total) for at in seen[:7]] == [(n, 7) for n in range(7)]
    proof = [
        (at.text, at.done, at.total) for at in seen[7:]
    ]  # the plan run on what has dense videos
    assert proof == [(f"psnr, prompt {n + 1} of 3", 7 + n, 10) for n in range(3)]
    assert seen[0].seconds_left is None
    assert all(at.seconds_left > 0 for at in seen[1:])
    assert seen[3].text.startswith("pilot")


def test_after_the_time_no_unit_begins_and_the_trials_done_make_a_plan(request_for, tmp_path):
    done = []
    watch = Watch(
        progress=lambda at: done.append(at.done),
        max_minutes=1,
        clock=lambda: 61.0 if done and done[-1] >= 5 else 0.0,
    )
    result = search(request_for(tmp_path / "run"), watch)
    assert result.prompts == (0, 1)
    assert result.plan.evidence.prompts == ("a red circle", "a blue ring")
    assert result.to_dict()["prompts_asked"] == 3
    again = search(SearchRequest.resume(tmp_path / "run"))
    assert again.prompts == (0, 1, 2)


def test_without_a_trial_there_is_no_plan_but_the_work_is_kept(request_for, tmp_path):
    with pytest.raises(
        SparseError, match=r"Saved 0 of 7 units; resume: sparsediff search --resume"
    ):
        search(request_for(tmp_path / "run"), Watch(max_minutes=0))


@pytest.mark.usefixtures("no_loading")
def test_another_search_cannot_go_on_in_the_same_folder(finished):
    folder = finished.folder.path
    with pytest.raises(SparseError, match=r"num_inference_steps is 4, now 5; seed is 0, now 3"):
        SearchRequest.resume(folder, seed=3, steps=5)


def test_other_weights_are_found_out_after_loading(finished, monkeypatch):
    def changed(*arguments, **options):
        pipe = load(*arguments, **options)
        next(pipe.transformer.blocks[0].attn1.parameters()).data.add_(1)
        return pipe

    load = driver.load_pipeline
    monkeypatch.setattr(driver, "load_pipeline", changed)
    with pytest.raises(SparseError, match="weights is"):
        search(SearchRequest.resume(finished.folder.path))


def test_a_budget_may_be_given_anew_without_new_trials(with_budget, monkeypatch):
    monkeypatch.setattr(passes, "trial", lambda *_, **__: pytest.fail("done again"))
    found = with_budget("density", 0.7)
    assert 0.5 < found.choice.density <= 0.7
    assert found.folder.read_settings().budget == Budget(kind="density", value=0.7)
    assert found.settings.options.density == 0.5  # of the trials' trajectory


def test_a_layer_that_cannot_run_sparse_is_an_error_with_its_reason(request_for, tmp_path):
    request = request_for(tmp_path / "run", options={"block_size": 128, "cost": "flops"})
    with pytest.raises(SparseError, match=r"2 of 2 layers cannot run sparse.*fit into one block"):
        search(request)


def test_a_backend_that_cannot_run_here_ends_the_search_at_once(request_for, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(SparseError, match="'triton' cannot run these inputs"):
        search(request_for(tmp_path / "run", backend="triton"))
    assert RunFolder(path=tmp_path / "run").saved() == (0, 7)


def test_a_failed_load_leaves_no_folder(request_for, tmp_path):
    request = request_for(tmp_path / "run")
    settings = dataclasses.replace(request.settings, model=str(tmp_path))
    with pytest.raises(SparseError, match="could not be loaded"):
        search(dataclasses.replace(request, settings=settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wan22", "hunyuan_video", "flux"])
def test_other_families(name, tmp_path):
    """Two models, text in the sequence, images; with every kind of pattern allowed."""
    family = FAMILIES[name]
    model = tmp_path / "model"
    family.build().save_pretrained(model)
    call = {k: v for k, v in family.call.items() if k != "prompt"} | {"num_inference_steps": 6}
    recipe = {"schema": "sparsediff.generation/1", "call": call, "dtype": "float32"}
    (model / "generation.json").write_text(json.dumps(recipe))
    options = {"block_size": 16, "cost": "flops", "per_bucket": 1}
    request = SearchRequest.new(
        str(model),
        ["a red circle"],
        Budget(kind="density", value=0.5),
        tmp_path / "run",
        device="cpu",
        options={**options, "online": True, "allow_skip": True, "compensate": True},
    )
    found = search(request)
    assert 0.2 < found.choice.density <= 0.5
    assert found.plan.table.compensate
    assert "online" in found.modes
    assert PatternPlan.from_pretrained(tmp_path / "run") == found.plan
