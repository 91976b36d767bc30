"""The backends, and which one "auto" means: pinned, measured, or the first of a fixed order."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

import torch

from sparsediff.kernels.backend import Backend, explain
from sparsediff.kernels.block_mask import block_shape
from sparsediff.kernels.cpu import CpuBackend
from sparsediff.kernels.errors import BackendError
from sparsediff.kernels.fa4 import Fa4Backend
from sparsediff.kernels.flex import FlexBackend
from sparsediff.kernels.gather import GatherBackend
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.ranked_call import RankedCall, padded
from sparsediff.kernels.ranking import measure, rank_of
from sparsediff.kernels.ranking_file import Rank
from sparsediff.kernels.reference import ReferenceBackend
from sparsediff.kernels.triton import TritonBackend

PIN = "SPARSEDIFF_BACKEND"
# What "auto" tries, by device type, before the reference, where nothing was measured. Triton's
# interpreter, which takes CPU tensors, is for tests and not among them.
FIXED_ORDER = {
    "cpu": ("cpu", "gather", "flex"),
    "cuda": ("triton", "gather", "fa4", "flex"),
}
ELSEWHERE = ("gather", "flex")
# Their first call takes seconds: "auto" ranks them only once `rank_backends` measured them.
COMPILED = frozenset({"fa4", "flex"})
# A pin of these leaves `block_mass` as it is: they have none.
WITHOUT_MASS = frozenset({"fa4", "flex"})


# Made here and not in a cached function: torch.compile looks through the cache and would make others.
_BACKENDS: tuple[Backend, ...] = (
    TritonBackend(),
    CpuBackend(),
    GatherBackend(),
    Fa4Backend(),
    FlexBackend(),
    ReferenceBackend(),
)


def ordered_backends() -> tuple[Backend, ...]:
    """One instance of each backend, in the fixed order of all devices together."""
    return _BACKENDS


def backends() -> tuple[str, ...]:
    """Names of the backends."""
    return tuple(backend.name for backend in ordered_backends())


def find_backend(name: str) -> Backend:
    """The backend of that name; raises BackendError with the known names for any other."""
    for backend in ordered_backends():
        if backend.name == name:
            return backend
    known = ", ".join(repr(known) for known in ("auto", *backends()))
    raise BackendError(f"Unknown backend {name!r}; choose one of {known}.")


def choose(name: str, inputs: AttentionInputs) -> Backend:
    """The backend for `block_sparse_attention`; a named or pinned one never falls back.

    Raises BackendError when it is unknown or cannot run these inputs.
    """

    def reasons(backend: Backend) -> list[str]:
        return backend.reasons(inputs)

    pin = pinned_backend() if name == "auto" else None
    return _named(name, pin, reasons) or _first(auto_order(inputs), reasons)


def choose_for_mass(name: str, inputs: MassInputs) -> Backend:
    """The backend for `block_mass`: as `choose`, but "auto" keeps the fixed order.

    A pinned backend that has no block mass at all is no pin here.
    """

    def reasons(backend: Backend) -> list[str]:
        return backend.mass_reasons(inputs)

    pin = pinned_backend() if name == "auto" else None
    order = [*fixed_order(inputs.q.device), find_backend("reference")]
    return _named(name, None if pin in WITHOUT_MASS else pin, reasons) or _first(order, reasons)


def fixed_order(device: torch.device) -> list[Backend]:
    """What "auto" tries on such a device where nothing was measured, without the reference."""
    return [find_backend(name) for name in FIXED_ORDER.get(device.type, ELSEWHERE)]


def auto_order(inputs: AttentionInputs) -> tuple[Backend, ...]:
    """What "auto" tries for such a call: by the measured rank where there is one, the reference last.

    Backends whose trial failed are not in it. May measure, see `rank_of`.
    """
    rank, device = auto_rank(inputs), inputs.q.device
    if rank is None:
        return *fixed_order(device), find_backend("reference")
    return _in_order(rank, device, ordered_backends())


def auto_rank(inputs: AttentionInputs) -> Rank | None:
    """The measured rank for such a call, or None where the fixed order stands."""
    return rank_of(inputs, [x for x in fixed_order(inputs.q.device) if x.name not in COMPILED])


# The last argument only makes a kept answer one of these backends: every call asks.
@functools.lru_cache(maxsize=256)
def _in_order(rank: Rank, device: torch.device, known: tuple[Backend, ...]) -> tuple[Backend, ...]:
    names = rank.order([backend.name for backend in fixed_order(device)])
    return *(find_backend(name) for name in names), find_backend("reference")


def rank_backends(
    *,
    device: str | torch.device,
    dtype: torch.dtype,
    head_dim: int,
    block_size: int | tuple[int, int] = 64,
    needs_grad: bool = False,
    return_lse: bool = False,
) -> Rank:
    """Measure all backends for one kind of call, those that compile included, and keep the rank.

    Takes seconds to minutes; every result is checked against the reference before it counts. From then
    on "auto" follows this rank on this machine. `needs_grad` times forward and backward together.

    Returns:
        The seconds per call of each backend, and why others have none.

    Raises:
        SparseError: such calls are not ranked (float64, blocks above 256, neither cpu nor cuda).
        BackendError: the device has too little memory for the problem.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    call = RankedCall(
        device=device,
        dtype=dtype,
        head_dim=padded(head_dim),
        block_size=block_shape(block_size),
        needs_grad=needs_grad,
        return_lse=return_lse,
    )
    rank = measure(call, fixed_order(device), thorough=True)
    if rank is None:
        raise BackendError(
            f"{device} has too little free memory to rank backends; free some first."
        )
    return rank


def pinned_backend() -> str | None:
    """What $SPARSEDIFF_BACKEND says "auto" means, or None; BackendError if that is no backend."""
    name = os.environ.get(PIN, "")
    if name in {"", "auto"}:
        return None
    if name not in backends():
        known = ", ".join(("auto", *backends()))
        raise BackendError(f"{PIN}={name!r} is no backend; set it to one of {known}, or unset it.")
    return name


def _named(name: str, pin: str | None, reasons: Callable[[Backend], list[str]]) -> Backend | None:
    """The backend that is named or pinned, if it can run; None for "auto" without a pin."""
    if name == "auto" and pin is None:
        return None
    backend = find_backend(pin or name)
    found = reasons(backend)
    if found and pin is not None:
        raise BackendError(
            f"{PIN}={pin} is set, and that backend cannot run these inputs: {'; '.join(found)}. "
            f"Unset it, or set it to another."
        )
    if found:
        raise explain(backend, found)
    return backend


def _first(order: Sequence[Backend], reasons: Callable[[Backend], list[str]]) -> Backend:
    for backend in order:
        if not reasons(backend):
            return backend
    names = ", ".join(backend.name for backend in order)
    raise BackendError(f"None of the backends {names} can run these inputs.")
