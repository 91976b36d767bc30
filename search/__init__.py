"""Deciding which blocks to compute: grids, schedules and methods (``sparsediff.search``).

Pure functions of tensors and grids: this room knows no diffusers and no model.
"""

if __name__ == "search":
    raise ImportError(
        "this is the source folder of sparsediff.search; run outside the checkout or with `python -P`"
    )

from sparsediff.search.adaspa import AdaSpa
from sparsediff.search.blade_asa import BladeASA
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.patterns.pattern_table import PatternTable, PlannedHead
from sparsediff.search.random_blocks import RandomBlocks
from sparsediff.search.schedule import Schedule, Step
from sparsediff.search.sparse_vdit import SparseVDiT
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.true_mass import TrueMass
from sparsediff.search.window import Window

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (AdaSpa, BladeASA, Window, RandomBlocks, TrueMass)
}

__all__ = [
    "METHODS",
    "AdaSpa",
    "AttentionCall",
    "BladeASA",
    "Memory",
    "Method",
    "PatternTable",
    "PlannedHead",
    "RandomBlocks",
    "Schedule",
    "SparseVDiT",
    "Step",
    "TokenGrid",
    "TrueMass",
    "Window",
]
