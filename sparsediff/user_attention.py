"""UserAttention: the dense attention that the user has configured, on a call's tensors or others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UserAttention:
    """One call as the user's own attention function computes it.

    ``name`` is diffusers' name of the ``function``; ``q``, ``k``, ``v`` ``[b, s, h, d]``; ``mask`` as
    the model passes it, or None; ``scale`` None where the function chooses.
    """

    name: str
    function: Callable[..., Tensor]
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float | None

    def __call__(self) -> Tensor:
        """The output ``[b, s, h, d]``."""
        return self._run(self.q, self.k, self.v, self.mask)

    def on(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same function on a shorter problem, ``[1, s', h', d]``, with as much of the mask."""
        mask = self.mask
        return self._run(q, k, v, None if mask is None else _narrowed(mask, q.shape[1]))

    def _run(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        arguments: dict[str, Any] = {"query": q, "key": k, "value": v, "scale": self.scale}
        if mask is not None:
            arguments["attn_mask"] = mask
        return self.function(**arguments)


def _narrowed(mask: Tensor, tokens: int) -> Tensor:
    """The first batch item and head of a mask ``[..., q or 1, k]``, for so many tokens."""
    for axis in range(mask.ndim):
        queries = axis == mask.ndim - 2 and mask.shape[axis] == mask.shape[-1]
        mask = mask.narrow(axis, 0, tokens if queries or axis == mask.ndim - 1 else 1)
    return mask
