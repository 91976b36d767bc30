"""The GPU suite: `make test-gpu`. Needs torch, triton, pytest and a CUDA device, nothing installed.

Without a device everything is skipped; TRITON_INTERPRET=1 runs what Triton's interpreter can instead,
which is how the suite itself is tried out on machines without a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
if importlib.util.find_spec("sparsediff") is None:  # run from the checkout
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
CUDA_ONLY = "cuda_only"


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker of tests that the interpreter cannot run."""
    config.addinivalue_line("markers", f"{CUDA_ONLY}: Triton's interpreter cannot run it")


def pytest_report_header() -> str:
    """Where the suite runs."""
    if torch.cuda.is_available():
        return f"GPU suite: {torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"GPU suite: no CUDA device{', interpreter' if INTERPRETED else ''}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the suite's tests, and skip what cannot run here, with the reason."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if torch.cuda.is_available():
            continue
        if not INTERPRETED:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        elif item.get_closest_marker(CUDA_ONLY) is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, not the interpreter"))


@pytest.fixture
def device() -> torch.device:
    """The first CUDA device, or the CPU for the interpreter."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(params=["float32", "bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest, device: torch.device) -> torch.dtype:
    """Every dtype of the kernels that the device computes."""
    found = getattr(torch, request.param)
    if device.type == "cpu" and found == torch.bfloat16:
        pytest.skip("Triton's interpreter computes no bfloat16 products")
    return found


@pytest.fixture
def half(device: torch.device) -> torch.dtype:
    """The 16-bit dtype to test with: bfloat16 where it can be."""
    return torch.float16 if device.type == "cpu" else torch.bfloat16
