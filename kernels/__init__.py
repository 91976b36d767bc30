"""Kernels: block-sparse attention, block mass, and the mask that both read."""

if __name__ == "kernels":
    raise ImportError(
        "this is the source folder of sparsediff.kernels; run outside the checkout "
        "or with `python -P`"
    )

from sparsediff.kernels.attention import block_sparse_attention
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.dense import dense_attention_lse
from sparsediff.kernels.errors import (
    AlreadyEnabledError,
    BackendError,
    SparseError,
    UnsupportedModelError,
)
from sparsediff.kernels.mass import block_mass
from sparsediff.kernels.registry import backends

__all__ = [
    "AlreadyEnabledError",
    "BackendError",
    "BlockMask",
    "SparseError",
    "UnsupportedModelError",
    "backends",
    "block_mass",
    "block_sparse_attention",
    "dense_attention_lse",
]
