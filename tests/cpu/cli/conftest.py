"""Shared by the command line's tests: the sample model, a made-up result, a way to run the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsediff.generation_result import GenerationResult, Timing
from sparsediff.kernels import BlockMask
from sparsediff.quality import quality
from sparsediff.report import RunReport

SAMPLE = Path(__file__).parents[3] / "samples" / "models" / "shapes-wan"


@pytest.fixture
def sample():
    return str(SAMPLE)


@pytest.fixture
def command(tmp_path):
    """Run `sparsediff ...` as a process of its own, in an empty folder."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "sparsediff.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.fixture
def config_folder(tmp_path):
    """A pipeline folder that holds configs only."""

    def write(index, **configs):
        folder = tmp_path / "configs"
        folder.mkdir()
        (folder / "model_index.json").write_text(json.dumps(index))
        for part, config in configs.items():
            (folder / part).mkdir()
            (folder / part / "config.json").write_text(json.dumps(config))
        return folder

    return write


def _layers(masks):
    return [
        {
            "layer": i,
            "name": name,
            "density": mask.density,
            "heads": mask.head_density.mean(dim=0).tolist(),
        }
        for i, (name, mask) in enumerate(masks.items())
    ]


@pytest.fixture
def make_result():
    """A GenerationResult as a run would leave it, without a run."""

    def make(*, prompt="a red circle", frames=5, compare=True, fallbacks=None, heads=3):
        generator = torch.Generator().manual_seed(0)
        dense = torch.rand(frames, 12, 14, 3, generator=generator)
        sparse = (dense + 0.1 * torch.rand(dense.shape, generator=generator)).clamp(0, 1)
        masks = {
            f"transformer.blocks.{i}.attn1": BlockMask.from_dense(
                torch.rand(1, heads, 6, 6, generator=generator) < 0.4,
                block_size=16,
                q_len=90,
                kv_len=90,
            )
            for i in range(2)
        }
        report = RunReport(
            density=0.5,
            sparse_density=0.375,
            sparse_calls=8,
            dense_calls=2,
            fallbacks=fallbacks or {},
            method={"name": "adaspa", "density": 0.375},
            backends={"cpu": 8},
            steps=[
                {"step": 0, "density": 1.0, "sparse_calls": 0, "dense_calls": 2},
                {"step": 1, "density": 0.375, "sparse_calls": 8, "dense_calls": 0},
            ],
            layers=_layers(masks),
        )
        return GenerationResult(
            model="models/some",
            prompt=prompt,
            seed=7,
            steps=2,
            call={"height": 12, "width": 14},
            fps=8,
            device="cpu",
            device_name="some cpu",
            dtype="float32",
            sparse=Timing(seconds=(1.0, 1.1, 0.9)),
            sparse_frames=sparse,
            report=report,
            masks=masks,
            versions={"torch": "2"},
            dense=Timing(seconds=(2.0, 2.4, 1.9)) if compare else None,
            dense_frames=dense if compare else None,
            quality=quality(dense, sparse) if compare else None,
            warmed_up=compare,
        )

    return make
