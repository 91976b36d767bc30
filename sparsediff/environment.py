"""Environment: the machine and the versions a figure was measured with."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "sparsediff",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "triton",
    "xformers",
)
# The oldest and the newest version of what is attached to that the tests run with.
TESTED = {"diffusers": ("0.41.0", "0.42.1")}
_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "asimd", "sve")


def versions() -> dict[str, str]:
    """Version of Python and of every package that matters and is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "sparsediff" not in found:  # run from the checkout
        import sparsediff

        found["sparsediff"] = sparsediff.__version__
    return found


def untested() -> list[str]:
    """A sentence for every package of TESTED that is older or newer than what was tested."""
    found = versions()
    return [
        f"{package} {found[package]} was never tested with sparsediff {found['sparsediff']}, which was "
        f"tested with {oldest} to {newest}. It may work; if it does not, install one of those."
        for package, (oldest, newest) in TESTED.items()
        if package in found and not _numbers(oldest) <= _numbers(found[package]) <= _numbers(newest)
    ]


def _numbers(text: str) -> tuple[int, ...]:
    """Major, minor and micro of a version, without what follows them."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def processor() -> str:
    """The name of the CPU, as the system gives it."""
    for line in _cpu_lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The vector instruction sets that matter to kernels and that this CPU has."""
    for line in _cpu_lines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [name for name in _FEATURES if name in flags]
    return []


def compiler() -> str | None:
    """Path of the C++ compiler that would be used, or None."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    return None


def default_device() -> str:
    """Where to run when the user does not say: the GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """A readable name of a torch device."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    if kind != "cpu":
        return kind
    count = torch.get_num_threads()
    return f"{processor()}, {count} {'thread' if count == 1 else 'threads'}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
