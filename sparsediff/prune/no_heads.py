"""NoHeads: the attention processor of an attention that has lost all its heads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsediff.prune.structures import Structure


class NoHeads:
    """What is left of attention without heads: the biases of its output layers.

    EcoDiff skips such a layer, which loses the bias; here the layer over no inputs gives it.
    """

    def __init__(self, structure: Structure) -> None:
        self.returns = structure.returns

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *arguments: Any,
        **named: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Shapes as the attention's own processor gives them."""
        out = _projected(getattr(attn, "to_out", None), hidden_states)
        if self.returns == "one" or encoder_hidden_states is None:
            return out
        last = getattr(attn, "to_add_out", None)
        return out, _projected(last or getattr(attn, "to_out", None), encoder_hidden_states)


def _projected(layer: Any, tokens: Tensor) -> Tensor:
    nothing = tokens.new_empty(*tokens.shape[:-1], 0)
    if layer is None:  # a single block: its own output layer follows
        return nothing
    projected: Tensor = (layer if not hasattr(layer, "__getitem__") else layer[0])(nothing)
    return projected
