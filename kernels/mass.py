"""block_mass: the public entry to the kernels that measure attention per block pair."""

from __future__ import annotations

from torch import Tensor

from sparsediff.kernels.inputs import mass_inputs
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

    Returns:
        float32 ``[batch, heads, query blocks, key blocks]``.

    Raises:
        SparseError: the inputs do not fit together or, on CPU, hold numbers that are not finite.
        BackendError: the named backend is unknown or cannot run these inputs.
    """
    inputs = mass_inputs(q, k, lse, block_size=block_size, scale=scale, kv_lens=kv_lens)
    return choose_for_mass(backend, inputs).mass(inputs)
