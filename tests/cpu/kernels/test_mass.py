"""block_mass against sums of the materialised attention map."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import PATH, block_sums, exact_attention, token_mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsediff.kernels import BackendError, SparseError, block_mass

BACKENDS = ("reference", "gather", "cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("poisoned")
@settings(
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    block=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    d=st.sampled_from((1, 12, 32, 64, 80)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
    padded=st.booleans(),
    strided=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_inputs(
    backend: str,
    ran: list[str],
    sizes: tuple[int, int],
    block: tuple[int, int],
    d: int,
    dtype: torch.dtype,
    padded: bool,
    strided: bool,
    seed: int,
) -> None:
    s, t = sizes
    noise = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, n, 2, 2 * d, generator=noise).to(dtype)[..., :d] for n in sizes)
    if not strided:
        q, k = q.contiguous(), k.contiguous()
    lens = torch.randint(0, t + 1, (2,), generator=noise) if padded else None
    everything = torch.ones(1, 1, -(-s // block[0]), -(-t // block[1]), dtype=torch.bool)
    keep = token_mask(everything, block, s, t, lens)
    exact = exact_attention(q, k, k, keep, 0.3)
    lse = exact.lse.float()
    lse[:, 1, s // 2 :] = float("-inf")
    expected = exact.weights.clone()
    expected[:, 1, s // 2 :] = 0
    ran.clear()
    found = block_mass(q, k, lse, block_size=block, scale=0.3, backend=backend, kv_lens=lens)
    assert ran == [PATH[backend]]
    assert found.dtype == torch.float32
    sums = block_sums(expected, block)
    assert found.shape == sums.shape
    # The given LSE is itself rounded to float32: one more relative error of that size.
    finite = exact.lse[exact.lse.isfinite()].abs()
    rounded = 2.0**-24 * float(finite.max() if finite.numel() else 0)
    error = (found - sums).abs()
    assert bool((error <= sums * (exact.weight_error + rounded) + 1e-6).all()), error.max()


def test_rows_of_dense_attention_sum_to_their_queries() -> None:
    noise = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 100, 2, 16, generator=noise), torch.randn(1, 77, 2, 16, generator=noise)
    lse = ((q.transpose(1, 2) @ k.transpose(1, 2).mT) / 4).logsumexp(dim=-1)
    mass = block_mass(q, k, lse, block_size=(32, 16))
    assert torch.allclose(mass.sum(dim=-1), torch.tensor([32.0, 32, 32, 4]), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stale_lse_overflows_to_large_numbers_and_not_to_garbage(backend: str) -> None:
    q = torch.full((1, 16, 1, 4), 8.0)
    mass = block_mass(q, q, torch.zeros(1, 1, 16), block_size=16, scale=1.0, backend=backend)
    assert mass.min() > 1e30


def test_flex_has_no_mass() -> None:
    q = torch.ones(1, 16, 1, 4)
    with pytest.raises(BackendError, match="'flex' cannot run these inputs: FlexAttention returns"):
        block_mass(q, q, torch.zeros(1, 1, 16), block_size=16, backend="flex")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [64, 75, 97])
def test_sampled_queries_stand_for_their_neighbours(backend: str, queries: int) -> None:
    """Each sampled row counts as often as its block has queries per sampled one."""
    noise = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, n, 2, 16, generator=noise) for n in (queries, 50))
    lse = ((q.transpose(1, 2) @ k.transpose(1, 2).mT) / 4).logsumexp(dim=-1)
    mass = block_mass(q, k, lse, block_size=(32, 16), backend=backend, query_stride=4)
    weights = ((q.transpose(1, 2) @ k.transpose(1, 2).mT) / 4 - lse[..., None]).exp()
    for m, rows in enumerate(weights.split(32, dim=2)):
        for n, block in enumerate(rows.split(16, dim=3)):
            expected = block[:, :, ::4].sum(dim=-1).mean(dim=-1) * rows.shape[2]
            torch.testing.assert_close(mass[:, :, m, n], expected, rtol=1e-5, atol=1e-6)
    whole = torch.tensor([float(len(part)) for part in torch.arange(queries).split(32)])
    torch.testing.assert_close(mass.sum(dim=-1), whole.expand(1, 2, -1), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("stride", [0, -2, 3, True, 2.0])
def test_a_stride_that_does_not_divide_the_block_is_refused(stride: object) -> None:
    q = torch.ones(1, 32, 1, 4)
    with pytest.raises(SparseError, match="divides the 32 queries"):
        block_mass(q, q, torch.zeros(1, 1, 32), block_size=32, query_stride=stride)  # type: ignore[arg-type]
