"""PixArt alpha and sigma: self-attention, cross-attention and a feed-forward in every block."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

PIXART = Family(
    name="PixArt",
    classes=("PixArtTransformer2DModel",),
    rows=(
        Heads(path="transformer_blocks.*.attn1"),
        Heads(path="transformer_blocks.*.attn2"),
        Neurons(path="transformer_blocks.*.ff"),
        Blocks(path="transformer_blocks.*"),
    ),
)
