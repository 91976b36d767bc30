"""The kernel gates: collected only where KERNEL_GATE asks for one, see docs/kernels.md.

Triton decides at import whether kernels run in its interpreter, so each gate is a process of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GATES = ("interpreter", "static")
GATE = os.environ.get("KERNEL_GATE", "")
CACHE = Path(tempfile.gettempdir()) / f"kernel-gate-{os.getpid()}"

SAMPLE = os.environ.get("KERNEL_GATE_SAMPLE") == "1"

collect_ignore = [name for name in GATES if name != GATE]
if SAMPLE:  # a second version of Triton: the gates themselves were tested with the first
    collect_ignore += [f"{name}/test_planted_faults.py" for name in GATES]
sys.path.insert(0, str(HERE / "support"))
if GATE:
    if GATE not in GATES:
        raise pytest.UsageError(f"KERNEL_GATE={GATE!r}; give one of {', '.join(GATES)}.")
    os.environ["TRITON_INTERPRET"] = str(int(GATE == "interpreter"))
    os.environ["TRITON_CACHE_DIR"] = str(CACHE)  # a fresh one: nothing may hide a compile


def pytest_report_header() -> str:
    """Which Triton the gate looks at."""
    if not GATE:
        return "kernel gates: not asked for (KERNEL_GATE=interpreter or static)"
    import triton

    return f"kernel gate: {GATE}, triton {triton.__version__}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One case of each interpreted test, where only a sample is asked for."""
    if not (SAMPLE and GATE == "interpreter"):
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.partition("[")[0], item)
    config.hook.pytest_deselected(items=[x for x in items if x not in first.values()])
    items[:] = first.values()


def pytest_unconfigure() -> None:
    """Leave no cache behind."""
    if GATE:
        shutil.rmtree(CACHE, ignore_errors=True)
