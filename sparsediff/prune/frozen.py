"""A model whose weights stay as they are while something else is learnt through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, no weight asks for a gradient; afterwards those that did do again."""
    asking = [value for value in model.parameters() if value.requires_grad]
    try:
        for value in asking:
            value.requires_grad_(False)
        yield
    finally:
        for value in asking:
            value.requires_grad_(True)
