"""The flex backend: right, really compiled, and loud where it would silently stop compiling."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
import torch._dynamo
from attention_oracle import check_attention, exact_attention, token_mask

from sparsediff.kernels import BackendError, BlockMask, block_sparse_attention
from sparsediff.kernels.cpu.build import find_compiler
from sparsediff.kernels.flex import CallKind, FlexBackend
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.registry import find_backend

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="torch.compile needs a compiler")


def example(seed: int, s: int = 70, block: int = 32) -> tuple[list[torch.Tensor], torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, n, 2, 16, generator=noise) for n in (s, 90, 90))
    dense = torch.rand(1, 2, -(-s // block), -(-90 // block), generator=noise) < 0.5
    dense[0, 0, 0] = False
    return [q, k, v], dense


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_right_and_compiled_once_per_kind(ran: list[str]) -> None:
    before = graphs()
    for seed in range(3):
        (q, k, v), dense = example(seed)
        lens = torch.tensor([90 - seed, 33])
        mask = BlockMask.from_dense(dense, block_size=32, q_len=70, kv_len=90)
        out = block_sparse_attention(q, k, v, mask, scale=0.3, backend="flex", kv_lens=lens)
        keep = token_mask(dense, (32, 32), 70, 90, lens)
        check_attention(out, None, exact_attention(q, k, v, keep, 0.3))
    assert ran == ["flex"] * 3
    assert graphs() - before == 1


def inputs_of(s: int) -> AttentionInputs:
    (q, k, v), dense = example(0, s)
    mask = BlockMask.from_dense(dense, block_size=32, q_len=s, kv_len=90)
    return AttentionInputs(q=q, k=k, v=v, mask=mask, scale=0.3)


@pytest.fixture
def one_variant(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo keeps one variant per function, and does not spend seconds in a C++ compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=1):
        yield


@pytest.mark.usefixtures("one_variant")
def test_each_kind_is_compiled_beyond_the_recompile_limit() -> None:
    before, backend = graphs(), FlexBackend()
    for s in (70, 41, 33, 70):
        inputs = inputs_of(s)
        right = block_sparse_attention(
            inputs.q, inputs.k, inputs.v, inputs.mask, scale=0.3, backend="reference"
        )
        assert torch.allclose(backend.attention(inputs)[0], right, atol=1e-5)
    assert graphs() - before == 3


@pytest.mark.usefixtures("one_variant")
def test_a_recompile_is_an_error_and_not_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds forced into one function: dynamo's limit must raise, not fall back."""
    monkeypatch.setattr(CallKind, "of", classmethod(lambda cls, inputs: KIND))
    backend = FlexBackend()
    backend.attention(inputs_of(70))
    with pytest.raises(BackendError, match="would be recompiled"):
        backend.attention(inputs_of(41))


KIND = CallKind(
    shapes=(),
    strides=(),
    lists=(),
    block_size=(32, 32),
    dtype=torch.float32,
    device="cpu",
    scale=0.3,
    padded=False,
    return_lse=False,
    needs_grad=False,
)


def test_no_more_kinds_than_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsediff.kernels.flex.MAX_KINDS", 0)
    (q, k, v), dense = example(0)
    mask = BlockMask.from_dense(dense, block_size=32, q_len=70, kv_len=90)
    inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=0.77)
    assert find_backend("flex").reasons(inputs) == [
        "0 kinds of calls are compiled already, and this is another"
    ]


def test_reasons_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (q, k, v), dense = example(0)
    mask = BlockMask.from_dense(dense, block_size=32, q_len=70, kv_len=90)
    inputs = AttentionInputs(q=q.requires_grad_(), k=k, v=v, mask=mask, scale=0.3, return_lse=True)
    assert find_backend("flex").reasons(inputs) == [
        "on CPU FlexAttention returns no LSE",
        "on CPU FlexAttention has no backward",
        "torch.compile needs a C++ compiler and none was found",
    ]


def flex_mask(dense: torch.Tensor) -> BlockMask:
    return BlockMask.from_dense(dense, block_size=32, q_len=70, kv_len=90)


@pytest.mark.usefixtures("one_variant")
@pytest.mark.parametrize(
    ("padded", "limit", "made"), [(False, 10**6, 1), (True, 10**6, 2), (False, 10, 2)]
)
def test_the_mask_is_made_once_if_small_and_not_padded(
    monkeypatch: pytest.MonkeyPatch, padded: bool, limit: int, made: int
) -> None:
    monkeypatch.setattr("sparsediff.kernels.flex.MAX_KEPT_BYTES", limit)
    calls = []
    to_flex = BlockMask.to_flex
    monkeypatch.setattr(
        BlockMask, "to_flex", lambda self, **given: calls.append(1) or to_flex(self, **given)
    )
    (q, k, v), dense = example(0)
    backend, mask = FlexBackend(), flex_mask(dense)
    outs = []
    for lens in ([90, 33], [40, 90]):  # padding that changes must not be kept with the mask
        given = torch.tensor(lens) if padded else None
        inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=0.3, kv_lens=given)
        outs.append(backend.attention(inputs)[0])
        keep = token_mask(dense, (32, 32), 70, 90, given)
        check_attention(outs[-1], None, exact_attention(q, k, v, keep, 0.3))
    assert len(calls) == made
    assert torch.equal(*outs) is not padded
