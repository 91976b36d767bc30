"""Sparse attention for Hugging Face diffusers: ``pipe.enable_sparse_attention()``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsediff.methods import install as _install_methods

if TYPE_CHECKING:
    from sparsediff.api import (
        disable_sparse_attention,
        enable_sparse_attention,
        sparse_attention,
        sparse_attention_report,
    )
    from sparsediff.distill.student.load_student import load_student, unload_student
    from sparsediff.kernels import BlockMask, SparseError
    from sparsediff.models import supported_models
    from sparsediff.plans import PatternPlan
    from sparsediff.report import RunReport
    from sparsediff.search import (
        AdaSpa,
        BladeASA,
        RandomBlocks,
        Schedule,
        SparseVDiT,
        TokenGrid,
        TrueMass,
        Window,
    )
    from sparsediff.session import Session

__version__ = "0.1.0"

__all__ = [
    "AdaSpa",
    "BladeASA",
    "BlockMask",
    "PatternPlan",
    "RandomBlocks",
    "RunReport",
    "Schedule",
    "Session",
    "SparseError",
    "SparseVDiT",
    "TokenGrid",
    "TrueMass",
    "Window",
    "disable_sparse_attention",
    "enable_sparse_attention",
    "load_student",
    "sparse_attention",
    "sparse_attention_report",
    "supported_models",
    "unload_student",
]

_HOMES = {
    "sparsediff.api": (
        "disable_sparse_attention",
        "enable_sparse_attention",
        "sparse_attention",
        "sparse_attention_report",
    ),
    "sparsediff.distill.student.load_student": ("load_student", "unload_student"),
    "sparsediff.kernels": ("BlockMask", "SparseError"),
    "sparsediff.models": ("supported_models",),
    "sparsediff.plans": ("PatternPlan",),
    "sparsediff.report": ("RunReport",),
    "sparsediff.search": (
        "AdaSpa",
        "BladeASA",
        "RandomBlocks",
        "Schedule",
        "SparseVDiT",
        "TokenGrid",
        "TrueMass",
        "Window",
    ),
    "sparsediff.session": ("Session",),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: torch alone takes seconds to import."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    if name == "ModelMixin":  # diffusers looks it up beside the class of a pruned model
        return import_module("diffusers").ModelMixin
    if name.startswith("Pruned"):
        found = import_module("sparsediff.prune.pruned_model").pruned_class(name)
        if found is not None:
            return found
    raise AttributeError(f"module 'sparsediff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


_install_methods()
