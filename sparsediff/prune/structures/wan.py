"""Wan 2.1 and 2.2 and their kin: RMS norms of queries and keys run over all heads."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

_NORMS = ("norm_q", "norm_k", "norm_added_k")


def _layers(blocks: str) -> tuple[Heads | Neurons, ...]:
    return (
        Heads(path=f"{blocks}.*.attn1", norms=_NORMS),
        Heads(path=f"{blocks}.*.attn2", norms=_NORMS),
        Neurons(path=f"{blocks}.*.ffn"),
    )


WAN = Family(
    name="Wan",
    classes=(
        "WanTransformer3DModel",
        "SkyReelsV2Transformer3DModel",
        "ChronoEditTransformer3DModel",
    ),
    rows=(*_layers("blocks"), Blocks(path="blocks.*")),
)
# No blocks of these two: control and face are added after blocks of certain places, which would be
# others once one is lost.
WAN_VACE = Family(
    name="Wan VACE",
    classes=("WanVACETransformer3DModel",),
    rows=(*_layers("blocks"), *_layers("vace_blocks")),
)
WAN_ANIMATE = Family(
    name="Wan Animate", classes=("WanAnimateTransformer3DModel",), rows=_layers("blocks")
)
