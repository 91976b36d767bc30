"""A model that computes its blocks again in the backward pass, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def checkpointed_blocks(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, diffusers' own gradient checkpointing is on where `wanted`; afterwards as it was."""
    changeable: Any = model
    if not wanted or changeable.is_gradient_checkpointing:
        yield
        return
    changeable.enable_gradient_checkpointing()
    try:
        yield
    finally:
        changeable.disable_gradient_checkpointing()
