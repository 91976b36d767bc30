"""Backend: something that computes block-sparse attention, or says why it cannot."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sparsediff.kernels.errors import BackendError
from sparsediff.kernels.inputs import AttentionInputs, MassInputs


class Backend(Protocol):
    """One way to compute; stateless, so that a single instance serves every call."""

    name: str

    @property
    def pools(self) -> bool:
        """Whether `attention` takes ``inputs.pooled``; `remainder.attention` adds it otherwise."""
        ...

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here; empty when they can."""
        ...

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""
        ...

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Why `mass` cannot be computed here; empty when it can."""
        ...

    def mass(self, inputs: MassInputs) -> Tensor:
        """fp32 ``[b, h, m, n]``: sum of exp(q k^T scale - lse) over each block pair."""
        ...


def explain(backend: Backend, reasons: list[str]) -> BackendError:
    """The error for a backend that was asked for by name and cannot run."""
    return BackendError(
        f"Backend {backend.name!r} cannot run these inputs: {'; '.join(reasons)}. "
        f'Use backend="auto" or "reference".'
    )
