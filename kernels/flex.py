"""Placeholder while the flex backend is written."""

from __future__ import annotations

from torch import Tensor

from sparsediff.kernels.inputs import AttentionInputs, MassInputs


class FlexBackend:
    """FlexAttention, compiled."""

    name = "flex"

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here."""
        return ["not there yet"]

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Not there yet."""
        raise NotImplementedError

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Why the block mass cannot be computed here."""
        return ["FlexAttention has no block mass"]

    def mass(self, inputs: MassInputs) -> Tensor:
        """Not there."""
        raise NotImplementedError
