"""Stable Diffusion 3 and 3.5: joint attention, in some blocks a second one over the image alone.

The last block ends the text: its attention has no ``to_add_out``, and there is no ``ff_context``.
"""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

SD3 = Family(
    name="Stable Diffusion 3",
    classes=("SD3Transformer2DModel",),
    rows=(
        Heads(path="transformer_blocks.*.attn", returns="pair"),
        Heads(path="transformer_blocks.*.attn2"),
        Neurons(path="transformer_blocks.*.ff"),
        Neurons(path="transformer_blocks.*.ff_context"),
        Blocks(path="transformer_blocks.*", inputs=("encoder_hidden_states", "hidden_states")),
    ),
)
