"""`torchrun -m sparsediff.cli distill`: two processes train one student, and one of them speaks.

Sharded ones too are launched in tests/cpu/distill/test_two_processes.py, without the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

LAYERS = 6


def test_two_processes_make_one_student(sample: str, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a red circle moving right\na blue ring\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc_per_node", "2", "-m", "sparsediff.cli", "distill", sample]
    command += ["--prompts", str(prompts), "--out", str(out), "--size", "32x32x17", "--steps", "2"]
    command += ["--iterations", "1", "--lora-rank", "4", "--block-size", "16", "--device", "cpu"]
    command += ["--warmup-iterations", "0"]  # its first rate is 0: nothing would be learnt
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["out"] == str(out)
    assert done.stderr.count("iteration 1 of 1: ") == 1
    checkpoint = out / "training" / "checkpoints" / "iteration-000001"
    assert len(list(checkpoint.glob("random_states_*"))) == 2  # two processes, not twice one
    weights = load_file(out / "pytorch_lora_weights.safetensors")
    assert len(weights) == 2 * 4 * 2 * LAYERS
    assert all(value.isfinite().all() for value in weights.values())
    assert any(torch.count_nonzero(v) for n, v in weights.items() if "lora_B" in n)
