"""The backends in the order in which "auto" tries them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from sparsediff.kernels.backend import Backend, explain
from sparsediff.kernels.cpu import CpuBackend
from sparsediff.kernels.errors import BackendError
from sparsediff.kernels.flex import FlexBackend
from sparsediff.kernels.gather import GatherBackend
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.reference import ReferenceBackend


@functools.cache
def ordered_backends() -> tuple[Backend, ...]:
    """One instance of each backend; "auto" takes the first without reasons.

    Fastest first, but flex behind gather: seconds of compiling must be asked for.
    """
    return CpuBackend(), GatherBackend(), FlexBackend(), ReferenceBackend()


def backends() -> tuple[str, ...]:
    """Names of the backends, in the order in which "auto" tries them."""
    return tuple(backend.name for backend in ordered_backends())


def find_backend(name: str) -> Backend:
    """The backend of that name; raises BackendError with the known names for any other."""
    for backend in ordered_backends():
        if backend.name == name:
            return backend
    known = ", ".join(repr(known) for known in ("auto", *backends()))
    raise BackendError(f"Unknown backend {name!r}; choose one of {known}.")


def choose(name: str, inputs: AttentionInputs) -> Backend:
    """The backend for `block_sparse_attention`; a named one never falls back (BackendError)."""
    return _choose(name, lambda backend: backend.reasons(inputs))


def choose_for_mass(name: str, inputs: MassInputs) -> Backend:
    """The backend for `block_mass`; a named one never falls back (BackendError)."""
    return _choose(name, lambda backend: backend.mass_reasons(inputs))


def _choose(name: str, reasons: Callable[[Backend], list[str]]) -> Backend:
    if name != "auto":
        backend = find_backend(name)
        found = reasons(backend)
        if found:
            raise explain(backend, found)
        return backend
    for backend in ordered_backends():
        if not reasons(backend):
            return backend
    raise BackendError(f"None of the backends {', '.join(backends())} can run these inputs.")
