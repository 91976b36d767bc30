"""Attention calls as a method sees them, without a model: small tensors and a recorder that counts."""

from __future__ import annotations

import torch

from sparsediff.kernels import BlockMask, dense_attention_lse
from sparsediff.search import AttentionCall, Step, TokenGrid


class Recorder:
    """Counts what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.masks: list[BlockMask] = []
        self.notes: list[str] = []

    def ran_dense(self, call: AttentionCall) -> None:
        self.ran.append("dense")

    def ran_sparse(self, call: AttentionCall, mask: BlockMask, backend: str) -> None:
        self.ran.append("sparse")
        self.masks.append(mask)

    def noted(self, text: str) -> None:
        self.notes.append(text)


def tensors(grid: TokenGrid, heads: int = 4, dim: int = 16, seed: int = 0) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(2, grid.tokens, heads, dim, generator=noise) for _ in range(3)]


def call(
    grid: TokenGrid, step: Step, recorder: Recorder, qkv: list[torch.Tensor], layer: int = 0
) -> AttentionCall:
    q, k, v = qkv

    def dense() -> torch.Tensor:
        return dense_attention_lse(q, k, v)[0]

    return AttentionCall(
        q=q,
        k=k,
        v=v,
        grid=grid,
        step=step,
        layer=layer,
        depth=layer,
        scale=q.shape[-1] ** -0.5,
        kv_lens=None,
        backend="auto",
        user_dense=dense,
        recorder=recorder,
    )
