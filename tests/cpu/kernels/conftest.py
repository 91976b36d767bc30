from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sparsediff.kernels.cpu.library import NativeLibrary, native_library
from sparsediff.kernels.flex import FlexBackend
from sparsediff.kernels.gather import GatherBackend
from sparsediff.kernels.reference import ReferenceBackend

PATHS = {
    NativeLibrary: "native",
    GatherBackend: "gather",
    ReferenceBackend: "reference",
    FlexBackend: "flex",
}


def recorded(name: str, method: Callable[..., Any], log: list[str]) -> Callable[..., Any]:
    def call(self: Any, inputs: Any) -> Any:
        log.append(name)
        return method(self, inputs)

    return call


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the implementations in the order in which they ran."""
    native_library()  # its own check, on first use, is not to be counted
    log: list[str] = []
    for owner, name in PATHS.items():
        for method in ("attention", "mass"):
            if method in vars(owner):
                monkeypatch.setattr(owner, method, recorded(name, vars(owner)[method], log))
    return log


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh tensors hold NaN, so that an element that is not written is found."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.ones(1).new_empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
