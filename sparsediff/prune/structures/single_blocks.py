"""Single-stream blocks (Flux, HunyuanVideo): attention and MLP side by side before one output layer."""

from __future__ import annotations

from typing import Literal

from sparsediff.prune.structures.rows import Heads, Neurons


def single_blocks(
    path: str, *, returns: Literal["one", "pair"] = "one", count: str = ""
) -> tuple[Heads, Neurons]:
    """The rows of the blocks at `path`: ``proj_out`` reads what the heads give, then the MLP.

    ``count``: the block's attribute that holds the number of its MLP's neurons, where it has one.
    """
    return (
        Heads(
            path=path,
            attention="attn",
            rows=("attn.to_q", "attn.to_k", "attn.to_v"),
            columns=("proj_out",),
            returns=returns,
        ),
        Neurons(path=path, up="proj_mlp", down="proj_out", after="attn.to_q", count=count),
    )
