"""The warp-specialised Hopper kernel against float64 and the default one, in a process of its own.

Nothing may choose it before this has passed. A kernel that hands over between warps can also hang, so
the process has a time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsediff.kernels.triton.hopper_launch import SWITCH

pytestmark = pytest.mark.cuda_only
ROOT = Path(__file__).parents[2]
SECONDS = 120
CODE = """
import sys
import torch
from attention_oracle import check_attention, exact_attention
from gpu_call import SCALE, GpuCall
from sparsediff.bench.hopper_switch import switched_on
from sparsediff.kernels.triton import operators

dim, dtype, tokens = int(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
call = GpuCall(device=torch.device("cuda", 0), dtype=dtype, dim=dim, q_len=tokens - 27, kv_len=tokens)
q, k, v = (x.contiguous() for x in call.tensors())
started = []
original = operators.hopper_forward
operators.hopper_forward = lambda *a, **b: started.append(1) or original(*a, **b)
default = call.run(q, k, v)
assert not started
with switched_on():
    found = [call.run(q, k, v) for _ in range(20)]
assert len(started) == 20
torch.cuda.synchronize()
exact = exact_attention(q.cpu(), k.cpu(), v.cpu(), call.keep(), SCALE)
for out, lse in [default, *found]:
    check_attention(out.cpu(), lse.cpu(), exact)
assert all(torch.equal(found[0][0], out) and torch.equal(found[0][1], lse) for out, lse in found)
print("largest difference from the default kernel:", float((found[0][0] - default[0]).abs().max()))
"""


@pytest.mark.parametrize("tokens", [384, 4096])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("dim", [64, 128])
def test_same_numbers(dim: int, dtype: str, tokens: int) -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the kernel is for compute capability 9.0")
    paths = [str(ROOT), str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(dim), dtype, str(tokens)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), SWITCH: "0"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
