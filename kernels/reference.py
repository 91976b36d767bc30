"""The reference backend: block-sparse attention and block mass in plain torch, the specification.

Any device and dtype (float64 stays float64), autograd through everything; one query block at a
time, so that memory is one block row of scores, never tokens x tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.kernels.inputs import AttentionInputs, MassInputs


class ReferenceBackend:
    """Plain torch; computes every input and is slow."""

    name = "reference"
    pools = False

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Nothing: the reference takes all valid inputs."""
        return []

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` and the LSE: fp32 (float64 for float64) ``[b, h, s]``."""
        q, k, v = (_heads_first(x) for x in (inputs.q, inputs.k, inputs.v))
        rows, columns = inputs.mask.block_size
        chosen = inputs.mask.to_dense()
        present = _present(inputs.kv_lens, k.shape[2], k.device)
        outs, lses = [], []
        for m, block in enumerate(torch.split(q, rows, dim=2)):
            keys = chosen[:, :, m].repeat_interleave(columns, dim=-1)[..., : k.shape[2]]
            out, lse = _attend(block, k, v, (keys & present)[:, :, None], inputs.scale)
            outs.append(out)
            lses.append(lse)
        out = torch.cat(outs, dim=2).transpose(1, 2).to(inputs.q.dtype)
        return out, torch.cat(lses, dim=2) if inputs.return_lse else None

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Nothing: the reference takes all valid inputs."""
        return []

    def mass(self, inputs: MassInputs) -> Tensor:
        """fp32 ``[b, h, m, n]``, one query block at a time."""
        q, k = _heads_first(inputs.q), _heads_first(inputs.k)
        rows, columns = inputs.block_size
        _, key_blocks = inputs.blocks
        present = _present(inputs.kv_lens, k.shape[2], k.device)[:, :, None]
        parts = []
        for block, lse in zip(
            torch.split(q, rows, dim=2), torch.split(inputs.lse, rows, dim=2), strict=True
        ):
            scores = (block @ k.transpose(-1, -2)) * inputs.scale - lse[..., None]
            weight = scores.exp().masked_fill(~present | lse.isneginf()[..., None], 0.0)
            by_key = F.pad(weight.sum(dim=2), (0, key_blocks * columns - k.shape[2]))
            parts.append(by_key.reshape(*by_key.shape[:2], key_blocks, columns).sum(dim=-1))
        return torch.stack(parts, dim=2).float()


def _heads_first(x: Tensor) -> Tensor:
    """``[b, s, h, d]`` -> ``[b, h, s, d]`` in fp32, or float64 where it already is."""
    return x.transpose(1, 2) if x.dtype == torch.float64 else x.transpose(1, 2).float()


def _present(kv_lens: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Which keys are no padding: bool ``[b or 1, 1, t]``."""
    position = torch.arange(length, device=device)
    if kv_lens is None:
        return torch.ones_like(position, dtype=torch.bool)[None, None]
    return (position < kv_lens[:, None])[:, None]


def _attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention over the marked keys; a row without any gives 0 and -inf."""
    scores = ((q @ k.transpose(-1, -2)) * scale).masked_fill(~keys, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    weight = (scores - lse[..., None]).exp().masked_fill(~keys, 0.0)
    return torch.matmul(weight, v), lse
