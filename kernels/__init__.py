"""Kernels: block-sparse attention, block mass, and the mask that both read."""

if __name__ == "kernels":
    # Python runs in the checkout, where this folder hides Hugging Face's package of the same name, and
    # transformers or diffusers asks for that one: hand it over, or look as if there were none.
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    from pathlib import Path

    _checkout = Path(__file__).resolve().parents[1]
    _elsewhere = [path for path in sys.path if Path(path).resolve() != _checkout]
    _spec = PathFinder.find_spec("kernels", _elsewhere)
    if _spec is not None and _spec.loader is not None:
        sys.modules["kernels"] = module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["kernels"])
    else:
        globals().update(__file__=None, __path__=[])

from sparsediff.kernels.attention import block_sparse_attention
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.block_rules import Diagonals, Full, Listed, Skip, Stripes, rule_mask
from sparsediff.kernels.dense import dense_attention_lse
from sparsediff.kernels.errors import (
    AlreadyEnabledError,
    BackendError,
    PlanError,
    PlanMismatchError,
    SparseError,
    UnsupportedModelError,
)
from sparsediff.kernels.mass import block_mass
from sparsediff.kernels.registry import backends, rank_backends

__all__ = [
    "AlreadyEnabledError",
    "BackendError",
    "BlockMask",
    "Diagonals",
    "Full",
    "Listed",
    "PlanError",
    "PlanMismatchError",
    "Skip",
    "SparseError",
    "Stripes",
    "UnsupportedModelError",
    "backends",
    "block_mass",
    "block_sparse_attention",
    "dense_attention_lse",
    "rank_backends",
    "rule_mask",
]
