"""Rotary embeddings of the heads that stay, where every head has places of its own in them (LTX)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

PLACES = "rotary_places"


def keep_rotary(attention: nn.Module, argument: str, places: Tensor) -> None:
    """From now on an attention takes these places of the rotary embedding that it is given.

    ``places``: int64, of the embedding's last dimension. They are a buffer, so that they are saved and
    loaded with the weights; the hook works with every attention processor.
    """
    before: Any = getattr(attention, PLACES, None)
    if before is not None:  # pruned once more: places of those that had stayed
        attention.register_buffer(PLACES, before[places.to(before.device)])
        return
    attention.register_buffer(PLACES, places.clone())
    attention.register_forward_pre_hook(partial(_own, argument), with_kwargs=True)


def _own(
    argument: str, attention: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rotary = named.get(argument)
    if rotary is None:
        return arguments, named
    places = getattr(attention, PLACES)
    return arguments, named | {argument: tuple(part[..., places] for part in rotary)}
