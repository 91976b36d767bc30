"""The weights of a denoiser that every video token is multiplied with, from its modules alone."""

from __future__ import annotations

from torch import nn

from sparsediff.models import ModelFacts, self_attention

# In the names of parameters: modulation is one product for the whole sample; the text of a joint
# block has projections and a feed-forward layer of its own.
_NOT_OF_VIDEO = ("norm", "scale_shift", "context", "add_")
_OF_TEXT = ("to_k", "to_v", "to_kv")  # in attention to something else


def token_weights(model: nn.Module, facts: ModelFacts) -> int:
    """Weights in the blocks that hold self-attention, without those that see only text or the sample.

    A model with experts counts all of them, though a token goes to a few. Raises
    UnsupportedModelError as `self_attention` does.
    """
    marked = self_attention(model, facts)
    blocks = {
        name.rpartition(".")[0]: model.get_submodule(name.rpartition(".")[0]) for name in marked
    }
    return sum(_of_block(block, set(marked.values())) for block in blocks.values())


def _of_block(block: nn.Module, marked: set[nn.Module]) -> int:
    others = [
        f"{name}.{part}."
        for name, module in block.named_modules()
        if hasattr(module, "processor") and module not in marked
        for part in _OF_TEXT
    ]
    return sum(
        p.numel()
        for name, p in block.named_parameters()
        if not any(part in name for part in _NOT_OF_VIDEO) and not name.startswith(tuple(others))
    )
