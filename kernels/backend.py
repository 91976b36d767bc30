"""Backend: something that computes block-sparse attention, or says why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import BackendError


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionInputs:
    """The inputs of one block-sparse attention call, validated.

    ``q`` ``[b, s, h, d]``, ``k`` and ``v`` ``[b, t, h, d]``, any strides, one dtype and device;
    ``mask`` covers s x t; ``scale`` multiplies q k^T; ``kv_lens`` int64 ``[b]`` or None: keys at and
    beyond it are padding and take no part; ``return_lse`` asks for the natural-log LSE ``[b, h, s]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: BlockMask
    scale: float
    kv_lens: Tensor | None = None
    return_lse: bool = False

    @property
    def needs_grad(self) -> bool:
        """Whether autograd must flow through the call."""
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.q, self.k, self.v))


class Backend(Protocol):
    """One way to compute; stateless, so that a single instance serves every call."""

    name: str

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here; empty when they can."""

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, dv]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""

    def mass_reasons(self, q: Tensor, k: Tensor, lse: Tensor) -> list[str]:
        """Why `mass` cannot be computed here; empty when it can."""

    def mass(
        self, q: Tensor, k: Tensor, lse: Tensor, block: tuple[int, int], scale: float
    ) -> Tensor:
        """fp32 ``[b, h, m, n]``: sum of exp(q k^T scale - lse) over each block pair."""


def explain(backend: Backend, reasons: list[str]) -> BackendError:
    """The error for a backend that was asked for by name and cannot run."""
    return BackendError(
        f"Backend {backend.name!r} cannot run these inputs: {'; '.join(reasons)}. "
        f'Use backend="auto" or "reference".'
    )
