"""How many tokens the layers of a model get in a user's run, which decides whether 2:4 pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def counted_tokens(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Afterwards, by path of a layer, the tokens of the call that came most often inside.

    Of equally frequent ones the larger. Layers that were not called are left out.
    """
    seen: dict[str, Counter[int]] = {path: Counter() for path in layers}
    found: dict[str, int] = {}
    handles: list[RemovableHandle] = []
    try:
        for path, layer in layers.items():
            handles.append(layer.register_forward_pre_hook(partial(_note, seen[path])))
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for path, counts in seen.items():
            if counts:
                found[path] = max(counts, key=lambda tokens: (counts[tokens], tokens))


def _note(counts: Counter[int], layer: nn.Module, arguments: tuple[Any, ...]) -> None:
    x = arguments[0]
    counts[x.numel() // x.shape[-1]] += 1
