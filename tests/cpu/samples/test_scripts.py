"""The samples that people copy run as they stand, on toy pipelines in place of the weights."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import imageio.v3 as imageio
import pytest
from tiny_pipelines import FAMILIES

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
OUTPUTS = ["wan21.mp4", "wan22.mp4", "hunyuan_video.mp4", "cogvideox15.mp4", "ltx.mp4", "flux.png"]


def script_of(output: str) -> Path:
    return (SAMPLES / output).with_suffix(".py")


def loaded(script: Path) -> tuple[str, str]:
    """The pipeline class and the Hub id of a script."""
    (call,) = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained")
    ]
    return ast.unparse(call.func).removesuffix(".from_pretrained"), ast.literal_eval(call.args[0])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """samples/tiny.py, found as a script finds it that lies beside it."""
    monkeypatch.syspath_prepend(str(SAMPLES))
    import tiny

    return tiny


@pytest.mark.parametrize("output", OUTPUTS)
def test_script_runs_sparse_and_writes(
    output: str,
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = script_of(output)
    class_name, model = loaded(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--tiny"])
    pipe = runpy.run_path(str(script), run_name="__main__")["pipe"]
    assert isinstance(pipe, getattr(diffusers, class_name))
    report = pipe.sparse_attention_report()
    calls = FAMILIES[tiny.MODELS[model]].calls(tiny.STEPS)
    # The first fifth of the steps is dense.
    assert (report.dense_calls, report.sparse_calls) == (calls // 5, calls - calls // 5)
    assert report.fallbacks == {}
    assert report.sparse_density < 0.75
    denoisers = {str(row["name"]).partition(".")[0] for row in report.layers}
    assert denoisers == {
        name for name in ("transformer", "transformer_2") if getattr(pipe, name, None)
    }
    assert str(report) in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == [output]
    assert imageio.imread(tmp_path / output).std() > 1  # a picture, not one colour


@pytest.mark.slow
def test_the_command_of_the_page(tmp_path: Path) -> None:
    """As a user's shell runs it, from another folder."""
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(script_of("flux.png")), "--tiny"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert re.search(r"[1-9]\d* of \d+ self-attention calls ran sparse", done.stdout)
    assert (tmp_path / "flux.png").is_file()


def test_the_page_shows_every_script() -> None:
    page = (SAMPLES / "README.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| \[`(\w+\.py)`\]\(\1\) \| \[`([\w./-]+)`\]", page, flags=re.MULTILINE)
    )
    assert rows == {script_of(output).name: loaded(script_of(output))[1] for output in OUTPUTS}
    links = re.findall(r"huggingface\.co/([\w-]+/[\w.-]+)\)", page)
    assert links == list(rows.values())


def test_a_model_of_another_class_is_no_toy(tiny: Any) -> None:
    with pytest.raises(TypeError, match="is a FluxPipeline, not a WanPipeline"):
        tiny.WanPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", dtype=None)
