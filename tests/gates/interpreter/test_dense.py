"""Dense attention with padded keys, which the triton backend computes without a bias."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask

from sparsediff.kernels import dense_attention_lse
from sparsediff.kernels.triton.launch import Launch


@pytest.mark.parametrize("lens", [(70, 70), (0, 33), (64, 1)])
def test_padding_needs_no_bias(lens: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = Launch.run

    def noted(launch: Launch) -> None:
        ran.append(launch.kernel.__name__)
        run(launch)

    monkeypatch.setattr(Launch, "run", noted)
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 2, 32, generator=noise) for n in (40, 70, 70))
    kv_lens = torch.tensor(lens)
    out, lse = dense_attention_lse(q, k, v, scale=0.3, kv_lens=kv_lens)
    assert ran == ["block_sparse_forward"]
    everything = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    keep = token_mask(everything, (128, 64), 40, 70, kv_lens)
    check_attention(out, lse, exact_attention(q, k, v, keep, 0.3))
    ran.clear()
    dense_attention_lse(q, k, v, scale=0.3)
    assert ran == [], "without padding torch's own kernel is the fastest"
