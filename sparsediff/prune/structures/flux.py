"""Flux.1 and Chroma: double blocks with joint attention, then single blocks."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons
from sparsediff.prune.structures.single_blocks import single_blocks

_STREAMS = ("encoder_hidden_states", "hidden_states")
_LAYERS = (
    Heads(path="transformer_blocks.*.attn", returns="pair"),
    Neurons(path="transformer_blocks.*.ff"),
    Neurons(path="transformer_blocks.*.ff_context"),
    *single_blocks("single_transformer_blocks.*", count="mlp_hidden_dim"),
)

FLUX = Family(
    name="Flux",
    classes=("FluxTransformer2DModel",),
    rows=(
        *_LAYERS,
        Blocks(path="transformer_blocks.*", inputs=_STREAMS),
        Blocks(path="single_transformer_blocks.*", inputs=_STREAMS),
    ),
)
# No blocks: a block's place says which part of the modulation it takes, so those after a lost one
# would take another's.
CHROMA = Family(name="Chroma", classes=("ChromaTransformer2DModel",), rows=_LAYERS)
