"""`sparsediff prune` of and into folders: models without pipelines, and what must not be replaced."""

import json

import pytest
import torch
from safetensors import safe_open
from tiny_pipelines import wan, wan22

from sparsediff.cli import main
from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.prune import removal
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.pruning_result import read_curve

MASKS = "pruning_masks.safetensors"
QUICK = ["--objective", "magnitude", "--ratio", "0.25", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A whole model, half of it in bfloat16, and the pipeline that it is of."""
    place = tmp_path_factory.mktemp("models")
    pipe = wan(layers=2)
    pipe.save_pretrained(place / "pipeline")
    pipe.transformer.to(torch.bfloat16).save_pretrained(place / "half")
    return place


def _prune(*arguments):
    return main(["prune", *map(str, arguments), *QUICK])


def _refused(capsys, words, *arguments):
    assert _prune(*arguments) == 1
    error = capsys.readouterr().err
    assert words in error, error


@pytest.fixture
def unloadable(monkeypatch):
    """Models must not be loaded: what is wrong is known before."""

    def refuse(*_, **__):
        pytest.fail("the model was loaded")

    for name in ("load_pipeline", "load_model"):
        monkeypatch.setattr(f"sparsediff.cli.prune_run.{name}", refuse)


def test_a_model_alone_is_checked_and_keeps_its_dtype(models, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "learning").mkdir(parents=True)
    (out / "learning" / "log.jsonl").write_text('{"iteration": 1, "penalty": 0.5}\n')  # another's
    assert _prune(models / "half", "--out", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checked"] is True
    assert found["curve"] == []
    assert found["least"] == 1
    with safe_open(out / "diffusion_pytorch_model.safetensors", framework="pt") as weights:
        assert weights.get_tensor("blocks.0.ffn.net.2.weight").dtype == torch.bfloat16
    # Once more into the same folder: a pruned model may be replaced.
    assert _prune(models / "half", "--out", out, "--ratio", "0.5") == 0
    assert "25 % of heads, ffn asked for" in (out / "pruning.html").read_text()


def test_a_model_alone_that_is_cut_wrong_is_not_saved(models, tmp_path, capsys, monkeypatch):
    honest = removal.cut

    def forgetful(model, structures, kept, **options):
        honest(model, structures, kept, **options)
        with torch.no_grad():
            model.blocks[0].ffn.net[2].bias.add_(1)

    monkeypatch.setattr(removal, "cut", forgetful)
    _refused(capsys, "differs from the masked one", models / "half", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "out", "words"),
    [
        ("pipeline", "pipeline", "is the model itself"),
        ("half", "half/../half", "is the model itself"),
        ("pipeline", "half", "holds a model. Choose another folder"),
        ("half", "pipeline", "holds a pipeline. Choose another folder"),
        ("pipeline/transformer", "half", "holds a model that is not a pruned one"),
    ],
)
def test_what_would_be_lost_is_known_before_loading(models, unloadable, capsys, model, out, words):
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    _refused(capsys, words, models / model, "--out", models / out)
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


@pytest.mark.parametrize("flag", [["--steps", "2"], ["--size", "32x32"], ["--prompts", "P"]])
def test_nothing_is_generated_with_a_model_alone(models, unloadable, tmp_path, capsys, flag):
    words = f"{flag[0]}: {models / 'half'} is a model without its pipeline"
    _refused(capsys, words, models / "half", "--out", tmp_path / "out", *flag)


def test_a_pruned_model_without_its_masks_is_refused_before_it_is_scored(
    models, tmp_path, capsys, monkeypatch
):
    first = tmp_path / "first"
    assert _prune(models / "half", "--out", first) == 0
    (first / MASKS).unlink()
    monkeypatch.setattr("sparsediff.cli.prune_run.prune", lambda *_: pytest.fail("was scored"))
    _refused(capsys, f"but {MASKS}, which says what it lost", first, "--out", tmp_path / "second")


def test_pipelines_with_other_models_are_told_what_to_do():
    with pytest.raises(UnsupportedModelError, match=r"has 2 models.*such as MODEL/transformer\."):
        prunable_model(wan22())
    pipe = wan(layers=1)
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    with pytest.raises(
        UnsupportedModelError, match="transformer is compiled: put the model itself"
    ):
        prunable_model(pipe)


def test_a_log_cut_short_is_read_as_far_as_it_goes(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"iteration": 1, "norm": null, "rate": 0.1}\n[2]\n{"iteration": 2, "no')
    assert read_curve(log) == [{"iteration": 1, "rate": 0.1}]
