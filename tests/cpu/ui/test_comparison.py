"""Comparison: the figures of the command line, dense run once, stopped without a trace."""

import json

import pytest
import torch
from toy_folder import BRANCHES, LAYERS, PROMPT

from sparsediff.cli import main
from sparsediff.compare import generate
from sparsediff.kernels.errors import SparseError
from sparsediff.root_hooks import session_on
from sparsediff.step_watch import RunStopped
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.settings import Settings

CHOSEN = {"prompt": PROMPT, "method": "adaspa", "density": 0.4, "seed": 11, "gate": False}


def run(comparison, **changes):
    told = []
    return comparison.run(Settings(**CHOSEN | changes), told.append), told


def test_figures_equal_the_command_lines(toy, tmp_path, capsys, comparison):
    words = [toy, PROMPT, "--density", "0.4", "--seed", "11", "--no-gate", "--device", "cpu"]
    assert main(["generate", *words, "--compare", "--json", "-o", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    compared, _ = run(comparison)
    found = json.loads(json.dumps(compared.result.to_dict()))  # tuples become lists
    assert found["sparse_calls"] == 3 * LAYERS * BRANCHES  # the first of four steps is dense
    same = ("psnr", "ssim", "flicker", "density", "sparse_density", "sparse_calls", "dense_calls")
    same += ("seed", "steps", "size", "call", "per_step", "per_layer", "method", "identical")
    assert {name: found[name] for name in same} == {name: said[name] for name in same}
    assert said["psnr"] is not None


def test_a_new_density_runs_only_the_sparse_half(toy):
    comparison = Comparison(toy, device="cpu")
    first, told = run(comparison, density=0.4)
    assert {"Dense", "Sparse"} <= {news.phase for news in told}
    again, told = run(comparison, density=1.0)
    assert "Dense" not in {news.phase for news in told}
    assert (first.dense_reused, again.dense_reused) == (False, True)
    assert again.result.dense.seconds == first.result.dense.seconds
    alone = generate(comparison.request(Settings(**CHOSEN | {"density": 1.0})))
    assert torch.equal(again.result.sparse_frames, alone.sparse_frames)
    assert again.result.quality == alone.quality
    other, _ = run(comparison, seed=12)
    assert not other.dense_reused


def test_progress_never_goes_back(comparison):
    _, told = run(comparison, seed=13)
    shares = [news.share for news in told]
    assert shares == sorted(shares)
    assert shares[-1] < 1
    steps = [news.step for news in told if news.phase == "Sparse"]
    assert steps == [n for n in range(1, 5) for _ in range(BRANCHES)]


@pytest.mark.parametrize("phase", ["Dense", "Sparse"])
def test_stop_leaves_the_model_as_it_was(comparison, phase):
    settings = Settings(**CHOSEN | {"seed": 20 + len(phase)})
    before = generate(comparison.request(settings))

    def stop(news):
        if news.phase == phase and news.step == 2:
            raise RunStopped

    with pytest.raises(RunStopped):
        comparison.run(settings, stop)
    model = comparison.loaded(lambda _: None).pipe.transformer
    assert session_on(model) is None
    assert not model._forward_pre_hooks
    after = comparison.run(settings, lambda _: None)
    assert after.dense_reused == (phase == "Sparse")
    assert torch.equal(after.result.sparse_frames, before.sparse_frames)
    assert torch.equal(after.result.dense_frames, before.dense_frames)


def test_methods_are_names_only(comparison, toy):
    for name in ("../../etc/passwd", toy, "sparse-vdit", "magic"):
        with pytest.raises(SparseError, match="no method or plan called"):
            comparison.request(Settings(method=name))


def test_a_device_that_is_not_there(toy):
    with pytest.raises(SparseError, match="cannot be used"):
        Comparison(toy, device="cuda:9" if torch.cuda.is_available() else "cuda")
