"""The machine that a GPU table names: device, driver, versions, date."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from sparsediff import environment


def machine(device: str) -> dict[str, Any]:
    """Everything a time depends on besides the code: plain JSON-ready values."""
    found = {
        "device": environment.device_name(device),
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "triton": _version("triton"),
        "xformers": _version("xformers"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["multiprocessors"] = str(properties.multi_processor_count)
        found["memory_gib"] = f"{properties.total_memory / 2**30:.0f}"
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def driver() -> str:
    """Version of the NVIDIA driver as nvidia-smi tells it; "unknown" where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
