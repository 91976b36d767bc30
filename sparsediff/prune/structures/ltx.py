"""LTX-Video: norms and, in self-attention, rotary embeddings that run over all heads."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

_NORMS = ("norm_q", "norm_k")

LTX = Family(
    name="LTX-Video",
    classes=("LTXVideoTransformer3DModel",),
    rows=(
        Heads(path="transformer_blocks.*.attn1", norms=_NORMS, rotary="image_rotary_emb"),
        Heads(path="transformer_blocks.*.attn2", norms=_NORMS),
        Neurons(path="transformer_blocks.*.ff"),
        Blocks(path="transformer_blocks.*"),
    ),
)
