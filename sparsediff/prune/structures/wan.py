"""Wan 2.1 and 2.2: RMS norms of queries and keys run over all heads."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

_NORMS = ("norm_q", "norm_k", "norm_added_k")

WAN = Family(
    name="Wan",
    classes=("WanTransformer3DModel",),
    rows=(
        Heads(path="blocks.*.attn1", norms=_NORMS),
        Heads(path="blocks.*.attn2", norms=_NORMS),
        Neurons(path="blocks.*.ffn"),
        Blocks(path="blocks.*"),
    ),
)
