"""The dense kernels that sparse ones are measured against, and the table itself at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsediff.bench.accuracy import attention_error
from sparsediff.bench.gpu import measure_gpu
from sparsediff.bench.gpu_document import write_documents
from sparsediff.bench.machine import machine
from sparsediff.bench.plan import Plan, Shape
from sparsediff.bench.problem import make_problem
from sparsediff.kernels.dense_kernels import dense_attention, dense_kernels, find_dense_kernel


@pytest.mark.parametrize("name", [kernel.name for kernel in dense_kernels()])
def test_dense_kernel(device: torch.device, half: torch.dtype, name: str) -> None:
    problem = make_problem(Shape(tokens=777, heads=3, dim=64), half, str(device))
    reasons = find_dense_kernel(name).reasons(*problem.tensors)
    if reasons:
        pytest.skip("; ".join(reasons))
    out = dense_attention(name, *problem.tensors, scale=problem.scale)
    assert attention_error(out, problem, None) <= 1


@pytest.mark.cuda_only
def test_a_baseline_is_there(device: torch.device) -> None:
    problem = make_problem(Shape(tokens=777, heads=3, dim=64), torch.bfloat16, str(device))
    assert find_dense_kernel("flash").reasons(*problem.tensors) == []


def test_small_table(device: torch.device, half: torch.dtype, tmp_path: Path) -> None:
    tokens = 3000 if device.type == "cuda" else 130
    plan = Plan(
        shapes=(Shape(tokens=tokens, heads=2, dim=64),),
        densities=(0.3, 1.0),
        dtype=half,
        device=str(device),
        repeat=3,
        case_seconds=1.0,
    )
    table = measure_gpu(plan)
    assert table.right, [row for row in table.rows if not row.match]
    found = {(row.of, row.kernel) for row in table.rows}
    assert found >= {
        ("forward", "flash"),
        *((of, "triton") for of in ("forward", "backward", "mass", "search")),
    }
    assert all(row.speedup is not None and row.seconds for row in table.rows)
    paths = write_documents(tmp_path, table, plan, machine(str(device)), "test")
    assert json.loads(paths[1].read_text())["rows"][0]["match"] is True
