"""CogVideoX: text and video through one attention, one output layer and one feed-forward."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

COGVIDEOX = Family(
    name="CogVideoX",
    classes=("CogVideoXTransformer3DModel",),
    rows=(
        Heads(path="transformer_blocks.*.attn1", returns="pair"),
        Neurons(path="transformer_blocks.*.ff"),
        Blocks(path="transformer_blocks.*", inputs=("hidden_states", "encoder_hidden_states")),
    ),
)
