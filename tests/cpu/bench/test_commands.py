"""`sparsediff bench` from the command line: the GPU table, the interpreter, hand-over, no diffusers."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediff.bench import gpu
from sparsediff.bench.gpu_row import GpuRow, GpuTable
from sparsediff.bench.plan import Plan, Shape, default_shapes
from sparsediff.cli import bench, bench_gpu, bench_transformer, main
from sparsediff.kernels import SparseError

CUDA = ["bench", "--kernel", "--device", "cuda"]
ROW = GpuRow(
    kernel="triton",
    of="forward",
    tokens=75600,
    heads=20,
    dim=128,
    density=0.2,
    flop=1e12,
    layout="bshd",
    error=0.1,
    seconds=(0.01, 0.012),
    speedups=(4.0, 4.2),
)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were measured, by a function that takes no time."""
    found: list[Plan] = []

    def measure(plan: Plan, **others: Any) -> GpuTable:
        found.append(plan)
        return GpuTable(
            rows=(ROW,), notes={"xformers": "absent"}, left_out=("part",), failed={}, minutes=1.0
        )

    monkeypatch.setattr(gpu, "measure_gpu", measure)
    monkeypatch.setattr("sparsediff.bench.machine.machine", lambda device: {"device": device})
    return found


def test_default_plan(plans: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CUDA) == 0
    assert plans == [Plan(shapes=default_shapes())]
    out = capsys.readouterr().out
    assert "75600 tokens, 20 heads of 128" in out
    assert "target, density 0.2: at least 3.8 x: 4.10 x, met" in out
    assert "target, density 0.5: at least 1.6 x: not measured" in out
    assert "left out for want of time: part" in out


def test_options_and_files(
    plans: list[Plan], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = (
        "--shape 2x8x4096x64 --dtype float16 --densities 0.5 --block-size 64 --backends triton,flex"
    )
    words += f" --repeat 3 --max-minutes 2 --forward-only --json --output {tmp_path}"
    assert main([*CUDA, *words.split()]) == 0
    assert plans == [
        Plan(
            shapes=(Shape(tokens=4096, heads=16, dim=64),),
            dtype=torch.float16,
            densities=(0.5,),
            block_size=(64, 64),
            backends=("triton", "flex"),
            repeat=3,
            minutes=2.0,
            backward=False,
        )
    ]
    found = json.loads(capsys.readouterr().out)
    assert found["targets"][0]["met"] is True
    assert json.loads((tmp_path / "kernels-gpu.json").read_text()) == found
    assert "sparsediff bench --kernel --device cuda" in (tmp_path / "kernels-gpu.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CUDA) == 1
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "block"), [("64", (64, 64)), ("128x64", (128, 64))])
def test_block_size(text: str, block: tuple[int, int]) -> None:
    assert bench.block_size(text) == block


@pytest.mark.parametrize("text", ["x", "64x", "0", "1x2x3", "-8"])
def test_bad_block_size(text: str) -> None:
    with pytest.raises(SparseError, match="give it like 64 or 128x64"):
        bench.block_size(text)


def test_oblong_blocks_are_for_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--kernel", "--block-size", "128x64"]) == 1
    assert "blocks are square here" in capsys.readouterr().err


def test_transformer_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[argparse.Namespace] = []
    monkeypatch.setattr(bench_transformer, "run", lambda args: given.append(args) or 7)
    assert main(["bench", "--transformer", "flux"]) == 7
    assert (given[0].transformer, given[0].block_size, given[0].dtype) == ("flux", 64, None)
    assert given[0].device == "cpu"
    assert isinstance(given[0].repeat, int)


def test_a_named_backend_never_falls_back(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--kernel", "--shape", "1x1x64x16", "--repeat", "1", "--densities", "0.5"]
    assert main([*words, "--backends", "gather", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["kernel"] for row in rows} == {"dense with LSE", "gather", "block mass, gather"}
    assert main([*words, "--backends", "triton"]) == 1
    assert "'triton' cannot run these inputs" in capsys.readouterr().err
    words[3] = "1x1x4096x16"
    assert main([*words, "--backends", "triton"]) == 1
    assert "interpreter" in capsys.readouterr().err


REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "gradio",
            "imageio", "imageio_ffmpeg", "ftfy", "PIL",
        }:
            raise ImportError("refused " + name)
sys.meta_path.insert(0, Refuse())
from sparsediff.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_diffusers(*words: str, interpreted: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpreted))}
    return subprocess.run(
        [sys.executable, "-P", "-c", REFUSE, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_interpreter_without_diffusers() -> None:
    words = "bench --kernel --backends triton --shape 1x1x40x16 --block-size 16 --repeat 1 --json"
    done = without_diffusers(*words.split(), "--densities", "0.4", interpreted=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["kernel"] for row in rows] == ["dense with LSE", "triton", "block mass, triton"]
    assert all(row["match"] for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gpu_table_imports_without_diffusers() -> None:
    done = without_diffusers(*CUDA, interpreted=False)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
    assert "refused" not in done.stderr


def test_plan_of_reads_all_arguments(plans: list[Plan]) -> None:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    args = parser.parse_args([*CUDA, "--densities", "1"])
    assert bench_gpu.plan_of(args).densities == (1.0,)
    args = parser.parse_args([*CUDA, "--densities", "2"])
    with pytest.raises(SparseError, match="density"):
        bench_gpu.plan_of(args)
