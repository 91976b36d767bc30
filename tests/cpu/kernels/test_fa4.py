"""The fa4 backend against a stand-in for flash-attn-4: what is handed over, and what is refused.

The stand-in's signatures and checks are those of flash-attn-4 4.0.0b36; no kernel of it runs here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from attention_oracle import check_attention, exact_attention, token_mask
from torch import Tensor

from sparsediff.kernels import BackendError, BlockMask
from sparsediff.kernels.fa4 import Fa4Backend, cute_package
from sparsediff.kernels.inputs import AttentionInputs


class BlockSparseTensorsTorch(NamedTuple):
    """The record's fields, in its order."""

    mask_block_cnt: Tensor
    mask_block_idx: Tensor
    full_block_cnt: Tensor | None = None
    full_block_idx: Tensor | None = None
    cu_total_m_blocks: Tensor | None = None
    cu_block_idx_offsets: Tensor | None = None
    block_size: tuple[int, int] | None = None
    dq_write_order: Tensor | None = None
    dq_write_order_full: Tensor | None = None
    spt: bool | None = None


class StandIn:
    """Checks the lists as the package does, then computes what they say, token by token."""

    def __init__(self) -> None:
        self.lists: list[BlockSparseTensorsTorch] = []

    def flash_attn_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        qv: Tensor | None = None,
        gather_kv_indices: Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int | None, int | None] = (None, None),
        mask_mod: Any = None,
        block_sparse_tensors: BlockSparseTensorsTorch | None = None,
        return_lse: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        assert qv is gather_kv_indices is mask_mod is None
        assert not causal
        assert window_size == (None, None)
        lists = block_sparse_tensors
        assert lists is not None
        assert softmax_scale is not None
        self.lists.append(lists)
        self.check(lists, q, k)
        rows, columns = lists.block_size
        dense = torch.zeros(
            *q.shape[:1], q.shape[2], -(-q.shape[1] // rows), -(-k.shape[1] // columns)
        )
        counts = lists.full_block_cnt.expand(dense.shape[:3])
        indices = lists.full_block_idx.expand(*dense.shape[:3], -1)
        for place in torch.cartesian_prod(*map(torch.arange, dense.shape[:3])).tolist():
            listed = indices[tuple(place)][: counts[tuple(place)]].long()
            assert listed.tolist() == sorted(set(listed.tolist()))  # the ragged block comes last
            dense[tuple(place)][listed] = 1
        keep = token_mask(dense.bool(), lists.block_size, q.shape[1], k.shape[1])
        exact = exact_attention(q, k, v, keep, softmax_scale)
        return exact.out.to(q.dtype), exact.lse.float() if return_lse else None

    def check(self, lists: BlockSparseTensorsTorch, q: Tensor, k: Tensor) -> None:
        rows, columns = lists.block_size
        expected = q.shape[0], q.shape[2], -(-q.shape[1] // rows)
        key_blocks = -(-k.shape[1] // columns)
        assert all(x.dtype == torch.int32 for x in lists[:4])
        assert all(x.is_contiguous() for x in lists[:4])
        for counts, indices in (lists[:2], lists[2:4]):
            assert (counts.ndim, indices.ndim) == (3, 4)
            for x in (counts, indices):
                assert x.shape[2] == expected[2]
                assert all(n in (1, m) for n, m in zip(x.shape[:2], expected[:2], strict=True))
            assert 1 <= indices.shape[3] <= key_blocks
        assert not lists.mask_block_cnt.any()
        assert lists[4:6] == (None, None)
        assert lists[7:] == (None, None, None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    made = StandIn()
    modules = {name: ModuleType(name) for name in ("flash_attn", "flash_attn.cute")}
    modules["flash_attn.cute.block_sparsity"] = ModuleType("flash_attn.cute.block_sparsity")
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    modules["flash_attn.cute"].flash_attn_func = made.flash_attn_func
    modules["flash_attn.cute.block_sparsity"].BlockSparseTensorsTorch = BlockSparseTensorsTorch
    cute_package.cache_clear()
    yield made
    cute_package.cache_clear()


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def mask_of(
    dense: Tensor, q_len: int, kv_len: int, block: tuple[int, int] = (128, 128)
) -> BlockMask:
    return BlockMask.from_dense(dense, block_size=block, q_len=q_len, kv_len=kv_len)


def call(mask: BlockMask, *, d: int = 64, h: int = 2, lse: bool = True) -> AttentionInputs:
    noise = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(2, n, h, d, generator=noise).bfloat16()
        for n in (mask.q_len, mask.kv_len, mask.kv_len)
    )
    return AttentionInputs(q=q, k=k, v=v, mask=mask, scale=0.11, return_lse=lse)


def some(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.5


def check(inputs: AttentionInputs, out: Tensor, lse: Tensor | None) -> None:
    mask = inputs.mask
    keep = token_mask(mask.to_dense(), mask.block_size, mask.q_len, mask.kv_len)
    keep = keep.expand(inputs.q.shape[0], inputs.q.shape[2], -1, -1)
    check_attention(out, lse, exact_attention(inputs.q, inputs.k, inputs.v, keep, inputs.scale))


@pytest.mark.parametrize("shared", [(2, 2), (1, 2), (1, 1)])
def test_ragged_lists_of_unequal_length(stand_in: StandIn, shared: tuple[int, int]) -> None:
    dense = some(*shared, 3, 4)
    dense[0, 0, 1] = False
    dense[0, 0, 0] = True
    inputs = call(mask_of(dense, 300, 400))
    check(inputs, *Fa4Backend().attention(inputs))
    assert stand_in.lists[0].full_block_cnt.shape == (*shared, 3)


def test_full_rows_that_are_not_stored(stand_in: StandIn) -> None:
    dense = some(1, 2, 3, 4)
    dense[..., 2] = False
    short = mask_of(dense, 384, 512)
    counts = short.counts.clone()
    counts[0, 1, 1] = 4
    inputs = call(dataclasses.replace(short, counts=counts, implied_full=True))
    check(inputs, *Fa4Backend().attention(inputs))
    assert stand_in.lists[0].full_block_idx[0, 1, 1].tolist() == [0, 1, 2, 3]


def test_no_block_anywhere(stand_in: StandIn) -> None:
    lists = torch.zeros(1, 1, 2, 0, dtype=torch.int32)
    mask = BlockMask.from_indices(lists, block_size=128, q_len=256, kv_len=128)
    inputs = call(mask)
    out, lse = Fa4Backend().attention(inputs)
    assert not out.any()
    assert lse is not None
    assert lse.isneginf().all()


def test_lists_are_made_once_per_mask(stand_in: StandIn) -> None:
    inputs = call(mask_of(some(1, 2, 3, 4), 384, 512), lse=False)
    assert Fa4Backend().attention(inputs)[1] is None
    Fa4Backend().attention(inputs)
    first, second = stand_in.lists
    assert first is second


@dataclasses.dataclass
class OnCuda:
    """What `reasons` reads of a CUDA tensor."""

    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 128
    requires_grad: bool = False
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cuda:0"))

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 256, 2, self.head_dim)


def reasons(*, block: tuple[int, int] = (128, 128), padded: bool = False, **q: Any) -> list[str]:
    x = OnCuda(**q)
    inputs = SimpleNamespace(
        q=x,
        k=x,
        v=x,
        mask=SimpleNamespace(block_size=block),
        kv_lens=torch.tensor([5]) if padded else None,
        needs_grad=x.requires_grad,
    )
    return Fa4Backend().reasons(inputs)


@pytest.mark.usefixtures("hopper", "stand_in")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"dtype": torch.float16, "head_dim": 64}, None),
        ({"dtype": torch.float32}, "torch.float32 (needs bfloat16 or float16)"),
        ({"head_dim": 96}, "head dim 96 (needs 64 or 128)"),
        ({"padded": True}, "it takes no kv_lens"),
        ({"requires_grad": True}, "a gradient is needed and this backend has no backward"),
        ({"block": (64, 64)}, "block_size=(64, 64) (needs (128, 128) on sm90)"),
        ({"device": torch.device("cpu")}, "the tensors are on cpu, not on a CUDA device"),
    ],
    ids=str,
)
def test_reasons(changes: dict[str, Any], reason: str | None) -> None:
    assert reasons(**changes) == ([] if reason is None else [reason])


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("capability", "block", "reason"),
    [
        ((8, 0), (128, 128), "sm80 (needs sm90, sm100 or sm110)"),
        ((12, 0), (128, 128), "sm120 (needs sm90, sm100 or sm110)"),
        ((10, 0), (128, 128), "block_size=(128, 128) (needs (256, 128) on sm100)"),
        ((10, 0), (256, 128), None),
    ],
)
def test_generations(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    block: tuple[int, int],
    reason: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert reasons(block=block) == ([] if reason is None else [reason])


@pytest.mark.usefixtures("hopper")
def test_an_older_package_is_a_reason(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["flash_attn.cute"], "flash_attn_func", lambda q, k, v: None)
    assert reasons() == ["this flash-attn-4 takes no block lists (4.0.0b36 does)"]


@pytest.mark.usefixtures("hopper")
def test_a_package_that_does_not_import_is_a_reason(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["flash_attn.cute"], "flash_attn_func")
    found = reasons()
    assert len(found) == 1
    assert found[0].startswith("flash-attn-4 cannot be imported: AttributeError")


@pytest.mark.usefixtures("hopper")
def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    cute_package.cache_clear()
    try:
        assert reasons() == ["flash-attn-4 is not installed"]
        with pytest.raises(BackendError, match="flash-attn-4 is not installed"):
            Fa4Backend().attention(call(mask_of(some(1, 1, 1, 1), 128, 128)))
    finally:
        cute_package.cache_clear()


def test_nothing_is_imported_for_calls_that_are_refused(stand_in: StandIn) -> None:
    assert reasons(dtype=torch.float32, device=torch.device("cpu"))
    assert cute_package.cache_info().misses == 0
