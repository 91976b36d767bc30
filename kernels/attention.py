"""block_sparse_attention: the public entry to every attention kernel."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.inputs import attention_inputs
from sparsediff.kernels.registry import choose


@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float | None = None,
    return_lse: Literal[False] = False,
    backend: str = "auto",
    kv_lens: Tensor | None = None,
) -> Tensor: ...


@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float | None = None,
    return_lse: Literal[True],
    backend: str = "auto",
    kv_lens: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
    kv_lens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention over the block pairs of `mask` only.

    Args:
        q: ``[batch, q tokens, heads, dim]``, any strides; float32, bfloat16, float16 or float64.
        k: ``[batch, kv tokens, heads, dim]``, dtype and device of q.
        v: as k.
        mask: the pattern, shared by batch items or heads where its size is 1.
        scale: multiplies q k^T; 1 / sqrt(dim) by default.
        return_lse: also return log(sum(exp(scores))).
        backend: a name of :func:`backends`, or "auto" for the first that can run the inputs. A named
            backend never falls back to another.
        kv_lens: int ``[batch]``; keys at and beyond it are padding and take no part.

    Returns:
        The output ``[batch, q tokens, heads, dim]`` in q's dtype; with `return_lse` also the
        natural-log LSE, float32 ``[batch, heads, q tokens]``. A query without keys gives 0 and -inf.

    Raises:
        SparseError: the inputs do not fit together or, on CPU, hold numbers that are not finite.
        BackendError: the named backend is unknown or cannot run these inputs.
    """
    inputs = attention_inputs(q, k, v, mask, scale=scale, kv_lens=kv_lens, return_lse=return_lse)
    out, lse = choose(backend, inputs).attention(inputs)
    return out if lse is None else (out, lse)
