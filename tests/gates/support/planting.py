"""Faults on purpose: the kernels with a piece of their source replaced, for the time of one test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sparsediff.kernels.triton as package

# Kernel modules in the order in which they import each other; all are loaded anew.
KERNELS = ("walk", "forward", "mass", "backward")
FOLDER = Path(package.__file__).parent


def plant(
    monkeypatch: pytest.MonkeyPatch, folder: Path, file: str, old: str, new: str, *, times: int = 1
) -> None:
    """Replace `old`, which must stand `times` times in a kernel file, and use the kernels with it.

    The launches look their kernels up at every call, so they find the faulty ones.
    """
    source = FOLDER.joinpath(file).read_text()
    if source.count(old) != times:
        pytest.fail(f"{file} holds {source.count(old)} x {old!r}; the fault was made for {times}.")
    faulty = folder / file  # a real file: Triton reads the source of its functions
    faulty.write_text(source.replace(old, new))
    for name in KERNELS:
        path = faulty if faulty.stem == name else FOLDER / f"{name}.py"
        full = f"{package.__name__}.{name}"
        monkeypatch.setitem(sys.modules, full, _loaded(full, path, monkeypatch))


def plant_functions(
    monkeypatch: pytest.MonkeyPatch, folder: Path, module: ModuleType, old: str, new: str
) -> ModuleType:
    """A copy of a plain module with `old`, which must stand in it once, replaced."""
    source = Path(str(module.__file__)).read_text()
    if source.count(old) != 1:
        pytest.fail(f"{module.__name__} holds {source.count(old)} x {old!r}; needs 1.")
    faulty = folder / f"{module.__name__.rpartition('.')[2]}.py"
    faulty.write_text(source.replace(old, new))
    return _loaded(f"{module.__name__}_faulty", faulty, monkeypatch)


def _loaded(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
