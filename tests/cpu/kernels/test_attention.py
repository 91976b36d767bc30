"""Every backend against float64 attention on a materialised mask, over shapes, layouts and dtypes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from attention_oracle import PATH, check_attention, exact_attention, token_mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsediff.kernels import BlockMask, block_sparse_attention

BACKENDS = ("reference", "gather", "cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "heads first", "fused", "shared batch", "strided dim")


@dataclass(frozen=True, kw_only=True)
class Case:
    q: Tensor
    k: Tensor
    v: Tensor
    dense: Tensor
    block: tuple[int, int]
    kv_lens: Tensor | None = None
    scale: float = 0.3

    @property
    def mask(self) -> BlockMask:
        return BlockMask.from_dense(
            self.dense, block_size=self.block, q_len=self.q.shape[1], kv_len=self.k.shape[1]
        )

    def check(self, backend: str, *, lse: bool = True) -> None:
        keep = token_mask(self.dense, self.block, self.q.shape[1], self.k.shape[1], self.kv_lens)
        exact = exact_attention(self.q, self.k, self.v, keep, self.scale)
        found = block_sparse_attention(
            self.q,
            self.k,
            self.v,
            self.mask,
            scale=self.scale,
            return_lse=lse,
            backend=backend,
            kv_lens=self.kv_lens,
        )
        out, found_lse = found if lse else (found, None)
        assert out.dtype == self.q.dtype
        assert out.shape == self.q.shape
        check_attention(out, found_lse, exact)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another memory layout."""
    b, s, h, d = x.shape
    if layout == "heads first":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "fused":
        return torch.cat([x, x + 1, x - 1], dim=-1).view(b, s, h, 3 * d)[..., d : 2 * d] - 1
    if layout == "shared batch":
        return x[:1].expand(b, s, h, d)
    if layout == "strided dim":
        return torch.stack([x, -x], dim=-1)[..., 0]
    return x.contiguous()


def make_case(
    noise: torch.Generator,
    *,
    b: int = 1,
    h: int = 2,
    s: int = 100,
    t: int = 100,
    d: int = 16,
    block: tuple[int, int] = (32, 32),
    density: float = 0.4,
    mask_shape: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    kv_lens: list[int] | None = None,
) -> Case:
    q, k, v = (
        laid_out(torch.randn(b, n, h, d, generator=noise).to(dtype), layout) for n in (s, t, t)
    )
    shape = (*(mask_shape or (b, h)), -(-s // block[0]), -(-t // block[1]))
    dense = torch.rand(shape, generator=noise) < density
    lens = None if kv_lens is None else torch.tensor(kv_lens)
    return Case(q=q, k=k, v=v, dense=dense, block=block, kv_lens=lens)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    b, h = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    t = draw(st.integers(1, 150))
    return make_case(
        torch.Generator().manual_seed(draw(st.integers(0, 2**31))),
        b=b,
        h=h,
        s=draw(st.integers(1, 150)),
        t=t,
        d=draw(st.sampled_from((1, 3, 12, 16, 32, 40, 64, 80, 128))),
        block=(draw(st.integers(1, 80)), draw(st.integers(1, 80))),
        density=draw(st.sampled_from((0.0, 0.1, 0.5, 1.0))),
        mask_shape=(draw(st.sampled_from((1, b))), draw(st.sampled_from((1, h)))),
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(LAYOUTS)),
        kv_lens=draw(st.none() | st.lists(st.integers(0, t), min_size=b, max_size=b)),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("poisoned")
@settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases(), lse=st.booleans())
def test_any_inputs(backend: str, ran: list[str], case: Case, lse: bool) -> None:
    ran.clear()
    case.check(backend, lse=lse)
    assert ran == [PATH[backend]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [32, 64, 128])
@pytest.mark.usefixtures("poisoned")
def test_usual_sizes(backend: str, dtype: torch.dtype, d: int, ran: list[str]) -> None:
    noise = torch.Generator().manual_seed(d)
    case = make_case(noise, s=256, t=320, d=d, block=(64, 64), dtype=dtype)
    case.check(backend)
    assert ran == [PATH[backend]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_density_one_is_dense_attention(backend: str) -> None:
    noise = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 150, 2, 32, generator=noise) for _ in range(3))
    mask = BlockMask.full(block_size=64, q_len=150, kv_len=150)
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    out = block_sparse_attention(q, k, v, mask, backend=backend)
    assert (out - dense.transpose(1, 2)).abs().max() < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_rows_are_zero_and_minus_infinity(backend: str) -> None:
    noise = torch.Generator().manual_seed(4)
    case = make_case(noise, s=96, t=96)
    dense = torch.ones_like(case.dense)
    dense[:, 0, 1] = False
    mask = BlockMask.from_dense(dense, block_size=32, q_len=96, kv_len=96)
    out, lse = block_sparse_attention(
        case.q, case.k, case.v, mask, return_lse=True, backend=backend
    )
    assert out[:, 32:64, 0].eq(0).all()
    assert lse[:, 0, 32:64].isneginf().all()
    assert lse[:, 1].isfinite().all()
    assert out[:, :, 1].abs().min() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_in_any_order(backend: str) -> None:
    """The largest score comes last, first, and far above the others: sums must be rescaled."""
    q = torch.ones(1, 64, 1, 4)
    t = torch.arange(256.0)
    for level in (t / 4, -t / 4, torch.where(t == 200, 300.0, -300.0), torch.full_like(t, -1e4)):
        k = level.view(1, -1, 1, 1).expand(1, 256, 1, 4)
        v = torch.sin(t).view(1, -1, 1, 1).expand(1, 256, 1, 4)
        dense = torch.ones(1, 1, 1, 4, dtype=torch.bool)
        Case(q=q, k=k, v=v, dense=dense, block=(64, 64), scale=0.25).check(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbouring_queries_rise_and_fall_far(backend: str) -> None:
    """Scores of one query climb by hundreds while those of its neighbour drop as far."""
    q = torch.tensor([1.0, -1.0]).repeat(16).view(1, 32, 1, 1)
    t = torch.arange(192.0)
    k = (20 * (t // 64)).view(1, -1, 1, 1) * 10
    v = torch.sin(t).view(1, -1, 1, 1)
    dense = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    Case(q=q, k=k, v=v, dense=dense, block=(32, 64), scale=1.0).check(backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_single_key_returns_its_value_exactly(backend: str, dtype: torch.dtype) -> None:
    """All finite 16-bit numbers pass unchanged, and so do means of two that need no rounding."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    values = bits[bits.isfinite() & (bits.abs() >= 2.0**-30)]
    values = values[: len(values) // 64 * 64].view(1, -1, 1, 64)
    n = values.shape[1]
    zeros = torch.zeros_like(values)
    own = torch.arange(n).view(1, 1, n, 1)
    mask = BlockMask.from_indices(own, block_size=1, q_len=n, kv_len=n)
    out = block_sparse_attention(zeros, zeros, values, mask, backend=backend)
    assert torch.equal(out, values)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_output_is_rounded_to_nearest_even(backend: str, dtype: torch.dtype) -> None:
    """Means of neighbouring numbers lie exactly between them."""
    start = torch.tensor([1.0, 3.5, 2.0**-16 if dtype == torch.float16 else 2.0**-40, 100.0])
    low = start.to(dtype).view(torch.int16) + torch.arange(16, dtype=torch.int16)[:, None]
    low, high = low.flatten().view(dtype), (low.flatten() + 1).view(dtype)
    v = torch.stack([low, high]).view(1, 2, 1, -1)
    zeros = torch.zeros_like(v)
    mask = BlockMask.full(block_size=2, q_len=2, kv_len=2)
    out = block_sparse_attention(zeros, zeros, v, mask, backend=backend)
    expected = ((low.double() + high.double()) / 2).to(dtype)
    assert torch.equal(out[0, 0, 0], expected)


def test_changing_an_unlisted_block_changes_nothing_and_a_listed_one_does() -> None:
    noise = torch.Generator().manual_seed(5)
    case = make_case(noise, s=64, t=128, h=1, block=(64, 32))
    dense = torch.tensor([[[[True, False, True, False]]]])
    mask = BlockMask.from_dense(dense, block_size=(64, 32), q_len=64, kv_len=128)
    for backend in BACKENDS:
        before = block_sparse_attention(case.q, case.k, case.v, mask, backend=backend)
        for block, same in ((1, True), (2, False)):
            k, v = case.k.clone(), case.v.clone()
            k[:, 32 * block : 32 * block + 32] += 1
            v[:, 32 * block : 32 * block + 32] -= 1
            after = block_sparse_attention(case.q, k, v, mask, backend=backend)
            assert torch.equal(before, after) == same


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    case = make_case(torch.Generator().manual_seed(6), s=300, t=300)
    first = block_sparse_attention(case.q, case.k, case.v, case.mask, backend="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = block_sparse_attention(case.q, case.k, case.v, case.mask, backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, again)
