"""Global tokens: against one softmax over chosen and pooled keys together, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_oracle import token_mask
from torch import Tensor

from sparsediff.kernels import BlockMask
from sparsediff.kernels.global_tokens import with_global_tokens
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.registry import find_backend

TOKENS, BLOCK, SCALE = 50, (16, 8), 0.4


def augmented(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, window: int, lens: list[int]
) -> tuple[Tensor, Tensor]:
    """Output and LSE over K_aug = [chosen K; means of every `window` keys], the latter with + ln n."""
    tokens = q.shape[1]
    windows = -(-tokens // window)
    member = torch.zeros(q.shape[0], windows, tokens, dtype=q.dtype)
    for item, length in enumerate(lens):
        for place in range(length):
            member[item, place // window, place] = 1
    count = member.sum(-1)
    mean = member / count.clamp(min=1)[..., None]
    qh, kh, vh = (x.transpose(1, 2) for x in (q, k, v))
    keys = torch.cat([kh, mean[:, None] @ kh], dim=2)
    values = torch.cat([vh, mean[:, None] @ vh], dim=2)
    chosen = token_mask(mask.to_dense(), mask.block_size, tokens, tokens, torch.tensor(lens))
    bias = torch.where(chosen, 0.0, -torch.inf).to(q.dtype).expand(*qh.shape[:2], -1, -1)
    extra = count.log()[:, None, None].expand(*qh.shape[:3], -1)
    scores = (qh @ keys.mT) * SCALE + torch.cat([bias, extra], dim=-1)
    return (scores.softmax(-1) @ values).transpose(1, 2), scores.logsumexp(-1)


def problem() -> tuple[list[Tensor], BlockMask]:
    noise = torch.Generator().manual_seed(3)
    qkv = [torch.randn(2, TOKENS, 3, 12, generator=noise, dtype=torch.float64) for _ in range(3)]
    chosen = torch.rand(2, 3, 4, 7, generator=noise) < 0.4
    chosen[..., 0] = True
    return qkv, BlockMask.from_dense(chosen, block_size=BLOCK, q_len=TOKENS, kv_len=TOKENS)


def computed(
    qkv: list[Tensor], mask: BlockMask, window: int, lens: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    q, k, v = qkv
    inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=SCALE, kv_lens=lens, return_lse=True)
    out, lse = find_backend(backend).attention(inputs)
    assert lse is not None
    return with_global_tokens(inputs, out, lse, window)


@pytest.mark.parametrize("backend", ["reference", "gather"])
@pytest.mark.parametrize("lens", [None, [50, 31], [45, 10]])
@pytest.mark.parametrize("window", [1, 7, 10, 64])
@pytest.mark.parametrize("recording", [False, True], ids=["inference", "gradients"])
def test_is_attention_over_chosen_and_pooled_keys(
    window: int, lens: list[int] | None, backend: str, recording: bool
) -> None:
    """A whole number of windows, ragged ones, one larger than the sequence, and padding.

    Budget: a score of 12 products up to 10 is off by 1e-6 or so, a weight by that share, and float32
    sums of 100 weighted values add as much again.
    """
    qkv, mask = problem()
    exact_in = [x.clone().requires_grad_(recording) for x in qkv]
    mine_in = [x.float().requires_grad_(recording) for x in qkv]
    padding = None if lens is None else torch.tensor(lens)
    out, lse = computed(mine_in, mask, window, padding, backend)
    exact, exact_lse = augmented(*exact_in, mask, window, lens or [TOKENS] * 2)
    assert (out.dtype, lse.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(out.double(), exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse.double(), exact_lse, atol=1e-5, rtol=0)
    if not recording:
        return
    (out.sin().sum() + lse.cos().sum()).backward()
    (exact.sin().sum() + exact_lse.cos().sum()).backward()
    for mine, right in zip(mine_in, exact_in, strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        assert right.grad.abs().max() > 0.1
        torch.testing.assert_close(mine.grad.double(), right.grad, atol=2e-5, rtol=1e-5)


def test_the_count_of_a_ragged_window_is_its_own() -> None:
    """With the count of a whole window, or the last key repeated to fill it, the result is another."""
    qkv, mask = problem()
    exact, _ = augmented(*qkv, mask, 7, [TOKENS] * 2)
    out, _ = computed(qkv, mask, 7, None, "reference")
    q, k, v = (torch.cat([x, x[:, -1:].expand(-1, 6, -1, -1)], dim=1) for x in qkv)
    counted = torch.tensor([TOKENS] * 2)
    filled = [x.float() for x in (q, k, v)]
    wide = BlockMask.from_dense(mask.to_dense(), block_size=BLOCK, q_len=56, kv_len=56)
    inputs = AttentionInputs(q=filled[0], k=filled[1], v=filled[2], mask=wide, scale=SCALE)
    sparse, lse = find_backend("reference").attention(
        replace(inputs, kv_lens=counted, return_lse=True)
    )
    assert lse is not None
    repeated = with_global_tokens(inputs, sparse, lse, 7)[0][:, :TOKENS]
    assert (out - exact).abs().max() < 1e-5
    assert (repeated - exact).abs().max() > 1e-3


def test_an_item_without_keys_gives_nothing() -> None:
    qkv, mask = problem()
    out, lse = computed([x.float() for x in qkv], mask, 7, torch.tensor([50, 0]), "reference")
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert bool(lse[1].isneginf().all())
    assert bool(out[0].isfinite().all())


def test_sixteen_bits_are_joined_in_float32() -> None:
    """Rounding the LSEs to bfloat16, as the released code does, is several times as far off."""
    qkv, mask = problem()
    short = [x.bfloat16() for x in qkv]
    exact, _ = augmented(*(x.double() for x in short), mask, 5, [TOKENS] * 2)
    out, lse = computed(short, mask, 5, None, "reference")
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    # Means, the sparse output and the result are rounded once each, to 2^-9 of values up to 3.
    assert (out.double() - exact).abs().max() < 3 * 3 * 2**-9
