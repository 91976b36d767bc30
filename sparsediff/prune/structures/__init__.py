"""Which rows and columns of a model belong to a head, a neuron or a block."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons
from sparsediff.prune.structures.structure import Count, Cut, Kind, SharedNorm, Structure
from sparsediff.prune.structures.table import FAMILIES, KINDS, family_of, structures_of

__all__ = [
    "FAMILIES",
    "KINDS",
    "Blocks",
    "Count",
    "Cut",
    "Family",
    "Heads",
    "Kind",
    "Neurons",
    "SharedNorm",
    "Structure",
    "family_of",
    "structures_of",
]
