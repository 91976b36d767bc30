"""`sparsediff generate --plan` on the sample model, small and short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plan_files import change, plan_of

from sparsediff.cli import main, parser
from sparsediff.cli.generate import _request
from sparsediff.compare import generate
from sparsediff.generation_request import GenerationRequest
from sparsediff.kernels.errors import PlanMismatchError
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.plans import PatternPlan
from sparsediff.search import TokenGrid

SAMPLE = str(Path(__file__).parents[3] / "samples" / "models" / "shapes-wan")
FLAGS = ["--frames", "5", "--steps", "3", "--dtype", "float32"]
LAYERS, BRANCHES = 6, 2


@pytest.fixture(scope="module")
def sample_plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    pipe = load_pipeline(ModelFiles(name=SAMPLE), dtype="bfloat16", device="cpu")
    grid = TokenGrid(frames=3, height=16, width=16)
    folder = tmp_path_factory.mktemp("plan")
    plan_of(pipe, grid=grid, block_size=64).save_pretrained(folder)
    return str(folder)


def run(*flags: str) -> int:
    return main(["generate", SAMPLE, "a red circle", *FLAGS, *flags])


def test_json_report_and_page(
    sample_plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--plan", sample_plan, "--compare", "--json", "-o", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "other weights" not in printed.err  # searched in bfloat16, run in float32
    found = json.loads(printed.out)
    plan = PatternPlan.from_pretrained(sample_plan)
    assert found["plan"] == plan.to_dict()
    assert found["plan"]["modes"]["stripe"] > 0
    assert found["method"]["name"] == "sparse-vdit"
    assert found["dense_calls"] == LAYERS * BRANCHES  # one step of three
    assert found["sparse_calls"] == 2 * LAYERS * BRANCHES
    assert 0 < found["sparse_density"] < 1
    assert plan.fingerprint.weights is not None
    assert (found["notes"], found["fallbacks"]) == ([], {})
    page = (tmp_path / "report.html").read_text()
    assert "sparsediff.plan-summary/1" in page


def test_another_size(sample_plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--plan", sample_plan, "--frames", "9", "-o", str(tmp_path / "out")]
    assert run(*size) == 1
    error = capsys.readouterr().err
    assert "searched for TokenGrid(3x16x16); this run has TokenGrid(5x16x16)" in error
    assert "strict=False" in error
    assert run(*size, "--no-strict") == 0
    out = capsys.readouterr().out
    assert "plan carried over from TokenGrid(3x16x16) to TokenGrid(5x16x16)" in out
    assert "patterns: " in out
    assert "sparse-vdit at density 0.3" in out


def test_what_excludes_a_plan(sample_plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--plan", sample_plan, "--method", "window")
    assert end.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    assert run("--plan", sample_plan, "--density", "0.5") == 1
    assert "this plan was searched for density=0.3" in capsys.readouterr().err
    assert run("--no-strict") == 1
    assert "AdaSpa has no option 'strict'" in capsys.readouterr().err


def test_flags_become_fields(sample_plan: str) -> None:
    line = ["generate", SAMPLE, "a", "--plan", sample_plan, "--no-strict", "--online-above", "0.06"]
    request = _request(parser().parse_args(line))
    method: Any = request.method
    assert (method.strict, method.online_above) == (False, 0.06)
    assert request.plan == PatternPlan.from_pretrained(sample_plan)


def test_a_bad_plan_is_one_sentence(
    tmp_path: Path, sample_plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text("{")
    assert run("--plan", str(tmp_path), "-o", str(tmp_path / "out")) == 1
    assert "plan.json: line 1 column 2" in capsys.readouterr().err
    PatternPlan.from_pretrained(sample_plan).save_pretrained(tmp_path)
    change(tmp_path, lambda v: v["fingerprint"]["components"][0].update(head_dims=[8] * 6))
    assert run("--plan", str(tmp_path), "-o", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert "head dim of transformer: the plan has 8 in layer 0, this model 32" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    with pytest.raises(PlanMismatchError):
        generate(GenerationRequest(model=SAMPLE, prompt="a", method=str(tmp_path)))
