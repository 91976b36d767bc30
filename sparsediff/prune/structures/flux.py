"""Flux.1: double blocks with joint attention; single blocks whose attention and MLP share an output."""

from sparsediff.prune.structures.rows import Blocks, Family, Heads, Neurons

_STREAMS = ("encoder_hidden_states", "hidden_states")

FLUX = Family(
    name="Flux",
    classes=("FluxTransformer2DModel",),
    rows=(
        Heads(path="transformer_blocks.*.attn", returns="pair"),
        Neurons(path="transformer_blocks.*.ff"),
        Neurons(path="transformer_blocks.*.ff_context"),
        Heads(
            path="single_transformer_blocks.*",
            attention="attn",
            rows=("attn.to_q", "attn.to_k", "attn.to_v"),
            columns=("proj_out",),
        ),
        Neurons(
            path="single_transformer_blocks.*",
            up="proj_mlp",
            down="proj_out",
            after="attn.to_q",
            count="mlp_hidden_dim",
        ),
        Blocks(path="transformer_blocks.*", inputs=_STREAMS),
        Blocks(path="single_transformer_blocks.*", inputs=_STREAMS),
    ),
)
