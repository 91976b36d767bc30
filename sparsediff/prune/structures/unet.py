"""UNets (Stable Diffusion 1 and XL, AnimateDiff): transformer blocks inside the levels."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

_LEVELS = (
    "down_blocks.*.attentions.*",
    "mid_block.attentions.*",
    "up_blocks.*.attentions.*",
    "down_blocks.*.motion_modules.*",
    "mid_block.motion_modules.*",
    "up_blocks.*.motion_modules.*",
)

UNET = Family(
    name="UNet",
    classes=("UNet2DConditionModel", "UNetMotionModel"),
    rows=tuple(
        row
        for level in _LEVELS
        for row in (
            Heads(path=f"{level}.transformer_blocks.*.attn1"),
            Heads(path=f"{level}.transformer_blocks.*.attn2"),
            Neurons(path=f"{level}.transformer_blocks.*.ff"),
            Blocks(path=f"{level}.transformer_blocks.*"),
        )
    ),
)
