"""block_mass: the public entry to the kernels that measure attention per block pair."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.inputs import MassInputs, mass_inputs
from sparsediff.kernels.registry import choose_for_mass


def block_mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    block_size: int | tuple[int, int],
    scale: float | None = None,
    backend: str = "auto",
    kv_lens: Tensor | None = None,
    query_stride: int = 1,
) -> Tensor:
    """Sum of exp(q k^T scale - lse) over each (query block, key block), without a tokens^2 tensor.

    Args:
        q: ``[batch, q tokens, heads, dim]``, any strides.
        k: ``[batch, kv tokens, heads, dim]``, dtype and device of q.
        lse: natural-log LSE, float32 ``[batch, heads, q tokens]``; with the dense LSE each row of
            blocks sums to its number of queries. Queries with -inf weigh nothing.
        block_size: tokens per block, an int or (query tokens, key tokens).
        scale: multiplies q k^T; 1 / sqrt(dim) by default.
        backend: as in :func:`block_sparse_attention`.
        kv_lens: int ``[batch]``; keys at and beyond it weigh nothing.
        query_stride: measure every n-th query of a block only and let it stand for the n: an estimate
            at 1 / n of the cost. Must divide the query tokens of a block.

    Returns:
        float32 ``[batch, heads, query blocks, key blocks]``.

    Raises:
        SparseError: the inputs do not fit together or, on CPU, hold numbers that are not finite, or
            `query_stride` does not divide the block.
        BackendError: the named backend is unknown or cannot run these inputs.
    """
    inputs = mass_inputs(q, k, lse, block_size=block_size, scale=scale, kv_lens=kv_lens)
    return measure(inputs, backend=backend, query_stride=query_stride)


def measure(inputs: MassInputs, *, backend: str, query_stride: int = 1) -> Tensor:
    """`block_mass` of inputs that are known to be valid."""
    check_stride(query_stride, inputs.block_size[0])
    if query_stride == 1:
        return choose_for_mass(backend, inputs).mass(inputs)
    rows, columns = inputs.block_size
    sampled = replace(
        inputs,
        q=inputs.q[:, ::query_stride],
        lse=inputs.lse[..., ::query_stride],
        block_size=(rows // query_stride, columns),
    )
    mass = choose_for_mass(backend, sampled).mass(sampled)
    last = (inputs.q.shape[1] - 1) % rows + 1  # queries of the last block, which may be partial
    mass *= query_stride
    mass[:, :, -1] *= last / (-(-last // query_stride) * query_stride)
    return mass


def check_stride(query_stride: int, rows: int) -> None:
    """Raise SparseError unless blocks of `rows` queries hold a whole number of sampled ones."""
    wrong = isinstance(query_stride, bool) or not isinstance(query_stride, int) or query_stride < 1
    if wrong or rows % query_stride:
        raise SparseError(
            f"query_stride={query_stride!r}: needs a whole number that divides the {rows} queries of a "
            f"block, such as 1 for all of them or 4 for every fourth."
        )
