"""HunyuanVideo, FramePack and HunyuanVideo 1.5, which has no single blocks.

The refiner of the text stays whole: it is a few small blocks over the prompt alone.
"""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons
from sparsediff.prune.structures.single_blocks import single_blocks

_STREAMS = ("hidden_states", "encoder_hidden_states")

HUNYUAN_VIDEO = Family(
    name="HunyuanVideo",
    classes=(
        "HunyuanVideoTransformer3DModel",
        "HunyuanVideoFramepackTransformer3DModel",
        "HunyuanVideo15Transformer3DModel",
    ),
    rows=(
        Heads(path="transformer_blocks.*.attn", returns="pair"),
        Neurons(path="transformer_blocks.*.ff"),
        Neurons(path="transformer_blocks.*.ff_context"),
        *single_blocks("single_transformer_blocks.*", returns="pair"),
        Blocks(path="transformer_blocks.*", inputs=_STREAMS),
        Blocks(path="single_transformer_blocks.*", inputs=_STREAMS),
    ),
)
